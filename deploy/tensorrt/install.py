"""`make tensorrt`: install the TensorRT libraries and pycuda into the virtual environment that runs this module.

The TensorRT libraries are downloaded from Maven Central. The Python bindings and the CUDA headers are listed in
requirements-tensorrt.lock, and must be installed first. This module compiles pycuda against the CUDA headers and an
empty libcuda, because pycuda has no wheels.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from deploy.local.exceptions import DeployError
from deploy.local.kafka.fetch import locked

VERSION = "10.15-1.5.13"
JAR = f"tensorrt-{VERSION}-linux-x86_64-redist.jar"
JAR_SHA256 = "8543a6bda95c5d42141d409e1b74024b444e96334a3815d53997cc4ec3cfce83"
FETCH_TIMEOUT_S = 3600.0
"""Time limit for the download of the TensorRT libraries, in seconds: 533 MB at 150 KB/s."""
COMPILE_TIMEOUT_S = 3600.0
"""Time limit for compiling pycuda, in seconds. Compiling pycuda takes about two minutes on an idle core."""
PYCUDA = Path(__file__).with_name("pycuda.txt")
LOADER = '''"""Loads TensorRT's libraries, as NVIDIA's package of this name does. Written by `make tensorrt`."""
import ctypes
for name in ("libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10"):
    ctypes.CDLL({folder!r} + "/" + name, mode=ctypes.RTLD_GLOBAL)
'''
_TAIL_CHARACTERS = 2_000


def install(home: Path) -> None:
    """Install the TensorRT libraries below ``home``, and install pycuda.

    Skip each part that is already installed. Raise DeployError.
    """
    folder = home.absolute() / "tensorrt"  # pycuda is compiled in another working folder
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "install.lock"):
        libraries = fetch_libraries(folder)
        package = Path(sysconfig.get_paths()["purelib"]) / "tensorrt_libs"
        package.mkdir(exist_ok=True)
        (package / "__init__.py").write_text(LOADER.format(folder=str(libraries)))
        if not find_spec("pycuda"):
            compile_pycuda(folder)


def fetch_libraries(folder: Path) -> Path:
    """Download and unpack the TensorRT libraries unless they exist, and return their folder. Raise DeployError."""
    libraries = folder / f"libs-{VERSION}"
    if libraries.is_dir():
        return libraries
    maven = shutil.which("mvn")
    if not maven:
        raise DeployError("the program mvn is missing: install Maven (apt-get install maven on Debian)")
    part = folder / "part"  # a killed download must not leave an incomplete folder
    shutil.rmtree(part, ignore_errors=True)
    artifact = f"org.bytedeco:tensorrt:{VERSION}:jar:linux-x86_64-redist"
    copy = [maven, "-q", "-B", "dependency:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={part}"]
    _run(copy, FETCH_TIMEOUT_S)
    jar = part / JAR
    unpack(jar, JAR_SHA256, part)
    jar.unlink()
    part.rename(libraries)
    return libraries


def unpack(jar: Path, sha256: str, folder: Path) -> None:
    """Extract the shared libraries from a jar into a folder.

    Raise DeployError if the SHA-256 of the jar is not ``sha256``.
    """
    with jar.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise DeployError(f"{jar.name} has the SHA-256 {found}: expected {sha256}. Run the installation again")
    with zipfile.ZipFile(jar) as archive:
        for entry in archive.namelist():
            if ".so" in Path(entry).name:
                with archive.open(entry) as source, (folder / Path(entry).name).open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)


def compile_pycuda(folder: Path) -> None:
    """Compile and install the release of pycuda that pycuda.txt specifies.

    The compilation needs a C++ compiler. Raise DeployError.
    """
    headers = Path(sysconfig.get_paths()["purelib"]) / "nvidia"
    includes = [str(path) for path in sorted(headers.glob("*/include"))]
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        source = ["--no-deps", "--no-binary", "pycuda", "--no-build-isolation", "--require-hashes"]
        _run([*pip, "download", *source, "-r", str(PYCUDA), "-d", str(work)], FETCH_TIMEOUT_S)
        with tarfile.open(next(work.glob("pycuda-*.tar.gz"))) as archive:
            archive.extractall(work, filter="data")
        # Linking needs a library of this name only. The driver's own is loaded at run time.
        _run(
            ["gcc", "-shared", "-x", "c", "/dev/null", "-Wl,-soname,libcuda.so.1", "-o", str(work / "libcuda.so")],
            COMPILE_TIMEOUT_S,
        )
        unpacked = next(path for path in work.glob("pycuda-*") if path.is_dir())
        options = {"CUDA_INC_DIR": includes, "CUDADRV_LIB_DIR": [str(work)], "CUDA_ENABLE_CURAND": False}
        lines = [f"{key} = {value!r}\n" for key, value in {"CUDA_ROOT": str(headers), **options}.items()]
        (unpacked / "siteconf.py").write_text("".join(lines))
        # The linker would leave out libcuda, because the empty one has none of the symbols that pycuda uses.
        environment = {**os.environ, "LDFLAGS": "-Wl,--no-as-needed"}
        _run([*pip, "install", "--no-deps", "--no-build-isolation", str(unpacked)], COMPILE_TIMEOUT_S, environment)


def _run(command: list[str], timeout_s: float, environment: Mapping[str, str] | None = None) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, check=False, env=environment
        )
    except FileNotFoundError:
        raise DeployError(
            f"the program {command[0]} is missing: install a compiler (apt-get install build-essential on Debian)"
        ) from None
    except subprocess.TimeoutExpired:
        raise DeployError(f"{command[0]} did not end within {timeout_s:.0f} s") from None
    if done.returncode:
        raise DeployError(f"{' '.join(command[:4])} failed:\n{(done.stdout + done.stderr)[-_TAIL_CHARACTERS:]}")


if __name__ == "__main__":
    try:
        install(Path(sys.argv[1]))
    except DeployError as error:
        sys.exit(f"make tensorrt: {error}")
