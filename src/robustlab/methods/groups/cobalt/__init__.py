"""CoBalT (Arefin et al., ICML 2024): concepts discovered without labels, and training balanced over them.

Stage 1 is concept discovery, for which no official code exists: `discovery_settings` holds its hyperparameters,
`network` student and teacher, `views` the two crops, `grouping` the slots, `losses` distillation, contrast and
quantisation, `dictionary` the codes and the centre, `discover` the training step. `extract` names the concepts of
images, `artifact` stores them in a file, `diagnostics` measures them; `pictures`, `charts` and `canvas` draw them. A
method runs stage 1 like this:

    discovery = Discovery(settings, task=data.task, runtime=runtime, seed=seed)
    loader = data.loader(batch_size=batch_size, views=("test",), purpose="discovery", labelled=False)
    learner = context.new_learner("discovery", epochs=epochs, steps_per_epoch=len(loader), wrap=discovery.wrap, ...)
    discovery.build(learner, updates=...)  # number of updates in the whole stage
    for batch in loader.epoch(epoch):
        scalars = discovery.step(batch.images, batch.index, epoch=epoch, total=batch.total)  # one training step
    concepts = discovery.extract(data, ("train", *data.evaluation_splits))
    artifact.save(concepts, path)  # artifact.load(path, data) refuses other data
    illustrate(discovery, concepts, data, folder)

Between steps, `discovery.state_dict()` and the learner's state are all that a resumed run needs. Losses and moving
averages are computed in float32 outside autocast; `step` enables autocast itself, only for the networks.

Stage 2 trains a classifier on images sampled in balance: `sampler` computes the sampling probabilities, `settings`
holds the training of stage 1 and the sampler's hyperparameters, `controls` shuffled concepts and clusters of whole
images, `outcome` what is printed and written, `method` both stages in one run.
"""
