#!/bin/bash
# pynetdicom installs commands of its own under the names of DCMTK's: echoscu, findscu, getscu, movescu, storescu, echoscp,
# storescp, and qrscp beside them. In an environment that is active they stand before DCMTK's, take most of the same options,
# end with the same status, and print something else: tags in capitals, (0020,000E) where DCMTK 3.6.7 has (0020,000e), and
# options such as findscu's -X, "extract responses to file", are refused. A script that looks for series in what findscu
# says, which ran well, finds none as soon as a package that needs pynetdicom is installed: no error, an empty list.
# Seen: pynetdicom 3.0.4, pydicom 3.0.2, Python 3.11:
#   echoscp echoscu findscu getscu movescu qrscp storescp storescu
#   findscu: status 0, (0020,000E) 2 times, (0020,000e) 0 times; with -X: status 2
# Exit 0 while that is so, 1 once it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pynetdicom==3.0.4 pydicom==3.0.2 2>/dev/null
venv/bin/python -W ignore - <<'PY'
import subprocess
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

NAMES = ["echoscp", "echoscu", "findscu", "getscu", "movescu", "qrscp", "storescp", "storescu"]
have = sorted(each.name for each in Path("venv/bin").iterdir() if each.name in NAMES)
print(*have)


def found(event):
    """One series."""
    answer = Dataset()
    answer.QueryRetrieveLevel, answer.StudyInstanceUID = "SERIES", event.identifier.StudyInstanceUID
    answer.SeriesInstanceUID = generate_uid()
    yield 0xFF00, answer


archive = AE()
archive.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
server = archive.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, found)])
port = str(server.socket.getsockname()[1])
keys = ["QueryRetrieveLevel=SERIES", f"StudyInstanceUID={generate_uid()}", "SeriesInstanceUID"]
asked = ["venv/bin/findscu", "-v", "-S", *(word for key in keys for word in ("-k", key)), "127.0.0.1", port]
done = subprocess.run(asked, capture_output=True, text=True)
said = done.stdout + done.stderr
extracting = subprocess.run([*asked[:2], "-X", *asked[2:]], capture_output=True, text=True).returncode
server.shutdown()
seen = (done.returncode, said.count("(0020,000E)"), said.count("(0020,000e)"), extracting)
print("findscu: status {}, (0020,000E) {} times, (0020,000e) {} times; with -X: status {}".format(*seen))
raise SystemExit(have != NAMES or seen != (0, 2, 0, 2))
PY
echo "pynetdicom's commands have the names of DCMTK's, and say other things"
