"""A translator put to work: windows, whole images, files. Free of any one runtime."""
