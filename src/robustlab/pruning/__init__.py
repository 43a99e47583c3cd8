"""Remove units from networks during training: units, dead units, surgery, cost."""
