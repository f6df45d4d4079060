"""From pictures to a released model: its training, its measurements and its model card."""
