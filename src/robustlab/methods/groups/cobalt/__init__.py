"""CoBalT (Arefin et al., ICML 2024): concepts discovered without labels, and training balanced over them.

Stage 1, concept discovery, of which no official code exists: `discovery_settings` hyperparameters, `network` student
and teacher, `views` the two crops, `grouping` slots, `losses` distillation, contrast and quantisation, `dictionary` the
codes and the centre, `discover` the training step, `extract` naming the concepts of images, `artifact` their file,
`diagnostics` numbers, `pictures`, `charts` and `canvas` what is drawn. A method runs it so:

    discovery = Discovery(settings, task=data.task, runtime=runtime, seed=seed)
    loader = data.loader(batch_size=batch_size, views=("test",), purpose="discovery", labelled=False)
    learner = context.new_learner("discovery", epochs=epochs, steps_per_epoch=len(loader), wrap=discovery.wrap, ...)
    discovery.build(learner, updates=...)  # of the optimizer in the whole stage
    for batch in loader.epoch(epoch):
        scalars = discovery.step(batch.images, batch.index, epoch=epoch, total=batch.total)  # all of one step
    concepts = discovery.extract(data, ("train", *data.evaluation_splits))
    artifact.save(concepts, path)  # artifact.load(path, data) refuses other data
    illustrate(discovery, concepts, data, folder)

Between steps, `discovery.state_dict()` beside the learner's own is all that a resumed run needs. Losses and moving
averages are computed in float32 outside of autocast; `step` enters autocast itself, for the networks alone.

Stage 2, a classifier on images drawn in balance: `sampler` who is drawn how often, `settings` how stage 1 is trained,
`controls` concepts shuffled or of whole images, `outcome` what is said and written, `method` both stages in one run.
"""
