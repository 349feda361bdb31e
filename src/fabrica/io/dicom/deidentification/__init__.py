"""De-identification of DICOM: the Basic Application Level Confidentiality Profile of PS3.15 Annex E and its options.

profile      which attribute is treated how: the standard's table as data.
key          what is derived from a secret key: new UIDs, pseudonyms, the shift of dates.
dates        dates and times moved.
words        words of identity, and descriptions of which only known words stay.
private      private elements that are known to be safe.
elements     a data set walked through, sequences and all.
burned_in    whether pixels may show identity.
regions      pixels outside ultrasound regions blanked.
pixel_data   pixels carried over, or written anew.
objects      one file.
folder       a folder of them.
check        what identity a folder still holds.
"""

from fabrica.io.dicom.deidentification.check import Finding, check
from fabrica.io.dicom.deidentification.folder import Account, deidentify
from fabrica.io.dicom.deidentification.key import Key, read_key

__all__ = ["Account", "Finding", "Key", "check", "deidentify", "read_key"]
