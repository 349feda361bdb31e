"""Networks that MONAI lacks and more than one method uses."""
