"""The command line: one verb a file, collected here. Heavy packages are imported inside the verbs (`importing`),
so that `fabrica --help` answers at once.

Exit codes: 0 done, 1 failed, 2 wrong use. Errors go to stderr, one line, no traceback unless --debug.
"""

from __future__ import annotations

import sys
from io import TextIOWrapper

import typer

from fabrica.cli.apply import apply
from fabrica.cli.deidentify import deidentify
from fabrica.cli.demo import demo
from fabrica.cli.evaluate import evaluate
from fabrica.cli.explain import explain
from fabrica.cli.export import export
from fabrica.cli.models import models
from fabrica.cli.node import node
from fabrica.cli.optimise import optimise
from fabrica.cli.options import Panels, one_line
from fabrica.cli.phantom import phantom
from fabrica.cli.recipes import recipes
from fabrica.cli.sample import sample
from fabrica.cli.scan import scan
from fabrica.cli.serve import serve
from fabrica.cli.study import study
from fabrica.cli.train import train
from fabrica.cli.version import version
from fabrica.errors import FabricaError

EXTRAS = {  # what brings which packages
    "train": ("torch", "monai", "lightning_fabric", "safetensors", "einops", "matplotlib", "jinja2", "skimage"),
    "export": ("onnx", "onnxscript"),
    "runtime": ("onnxruntime",),
    "runtime-openvino": ("openvino",),
    "serve": ("starlette", "uvicorn", "python_multipart", "prometheus_client", "pynetdicom"),
}
PAGES = ("matplotlib", "jinja2", "markupsafe")  # all that a study's results need beside the base: the extra `study`
INTERRUPTED = 130  # what typer returns, instead of raising, after Ctrl-C

app = typer.Typer(
    name="fabrica",
    help="Generative medical imaging from DICOM to DICOM.\n\nWith --debug, any command shows where an error arose.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
VERBS = (
    demo,
    models,
    scan,
    phantom,
    recipes,
    train,
    sample,
    apply,
    serve,
    evaluate,
    explain,
    export,
    optimise,
    node,
    deidentify,
    version,
)
for verb in VERBS:
    app.command(cls=Panels, context_settings={"max_content_width": 120})(verb)
app.add_typer(study, name="study")


def main() -> None:
    """Run the command line; never shows a traceback to a user without --debug."""
    for stream in (sys.stdout, sys.stderr):  # names of files need not be UTF-8
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    debug = "--debug" in sys.argv
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    try:
        if app(arguments or ["--help"], standalone_mode=False) == INTERRUPTED:
            raise KeyboardInterrupt
    except FabricaError as error:
        _fail(error, error.exit_code, debug)
    except typer.Abort:
        sys.exit(1)
    except KeyboardInterrupt:
        print("fabrica: stopped; what had been saved is kept", file=sys.stderr)
        sys.exit(1)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        extra = next((extra for extra, packages in EXTRAS.items() if missing in packages), "")
        extra = "study" if missing in PAGES and arguments[:1] == ["study"] else extra
        needed = "PyTorch and what belongs to it" if extra == "train" else "it"
        mended = f"this command needs {needed}: pip install 'fabrica-imaging[{extra}]'"
        _fail(error, 1, debug, f"{missing} is not installed; {mended}" if extra else "")
    except OSError as error:
        named = f"{error.filename} cannot be used ({error.strerror})" if error.filename else ""
        _fail(error, 1, debug, named)
    except Exception as error:
        if hasattr(error, "exit_code") and hasattr(error, "format_message"):  # click's own usage errors
            _fail(error, 2, debug, error.format_message())
        _fail(
            error,
            1,
            debug,
            f"unexpected {type(error).__name__}: {error} (run again with --debug and report it)",
        )


def _fail(error: Exception, code: int, debug: bool, message: str = "") -> None:
    if debug:
        raise error
    print(one_line(f"fabrica: {message or error}"), file=sys.stderr)
    sys.exit(code)
