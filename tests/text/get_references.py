"""Fetch what the text tests compare with, by pip alone: chat templates of real models, and llama.cpp's test
vocabularies.

    python tests/text/get_references.py [--vocabularies] [FOLDER]      default: ~/.cache/groschen-references

Templates: the wheel of trl (Apache-2.0) keeps those of some forty models to recognise them. Vocabularies: the
source package of llama-cpp-python (MIT) holds llama.cpp's `models/`: GGUF files without tensors, each with
texts and the ids that llama.cpp gives to them, and more templates (77 MB, so only if asked for). Nothing of
either is kept in this repository: a template is licensed like its model.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

TRL = "trl==1.16.0"
LLAMA_CPP = "llama-cpp-python==0.3.36"


def folder() -> Path:
    named = os.environ.get("GROSCHEN_REFERENCES")
    return Path(named) if named else Path.home() / ".cache" / "groschen-references"


def main() -> None:
    arguments = [argument for argument in sys.argv[1:] if argument != "--vocabularies"]
    target = Path(arguments[0]) if arguments else folder()
    with tempfile.TemporaryDirectory() as scratch:
        pip(scratch, TRL)
        (wheel,) = Path(scratch).glob("trl-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.startswith("trl/chat_templates/") and name.endswith(".jinja"):
                    keep(target / "templates" / f"trl-{Path(name).name}", archive.read(name))
        if "--vocabularies" in sys.argv:
            pip(scratch, "--no-binary", ":all:", LLAMA_CPP)
            (source,) = Path(scratch).glob("llama_cpp_python-*.tar.gz")
            with tarfile.open(source) as archive:
                for member in archive:
                    path = Path(member.name)
                    file = archive.extractfile(member)
                    if file and "/vendor/llama.cpp/models/" in member.name:
                        if path.name.startswith("ggml-vocab-"):
                            keep(target / "vocabularies" / path.name, file.read())
                        elif path.suffix == ".jinja":
                            keep(target / "templates" / f"llama.cpp-{path.name}", file.read())
    sys.stdout.write(f"{target}\n")


def pip(scratch: str, *what: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, *what]
    subprocess.run(command, check=True, stdout=sys.stderr)


def keep(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


if __name__ == "__main__":
    main()
