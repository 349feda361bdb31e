"""Models over HTTP: the open inference protocol, images in and the same kind out, and a page to look at them."""
