"""One LightningModule a stage of training."""
