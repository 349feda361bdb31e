"""The files of the page, as they stand in this folder: no build, nothing from elsewhere."""
