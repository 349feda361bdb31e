"""DICOM: read, arranged into volumes, written."""
