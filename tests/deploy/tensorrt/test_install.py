"""Tests of the installation of the real TensorRT, without a download."""

from __future__ import annotations

import hashlib
import sys
import types
import zipfile
from pathlib import Path

import pytest

from deploy.local.exceptions import DeployError
from deploy.tensorrt import install


@pytest.fixture
def jar(tmp_path: Path) -> Path:
    path = tmp_path / "redist.jar"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("META-INF/MANIFEST.MF", "")
        archive.writestr("org/bytedeco/tensorrt/linux-x86_64/libnvinfer.so.10", b"library")
        archive.writestr("org/bytedeco/tensorrt/linux-x86_64/libnvinfer_builder_resource_ptx.so.10.15.1", b"kernels")
    return path


def test_unpacking_a_tensorrt_jar_writes_only_its_shared_libraries(jar: Path, tmp_path: Path) -> None:
    target = tmp_path / "libs"
    target.mkdir()
    install.unpack(jar, hashlib.sha256(jar.read_bytes()).hexdigest(), target)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {
        "libnvinfer.so.10": b"library",
        "libnvinfer_builder_resource_ptx.so.10.15.1": b"kernels",
    }


def test_a_tensorrt_jar_with_a_wrong_hash_is_refused(jar: Path, tmp_path: Path) -> None:
    with pytest.raises(DeployError, match=r"redist\.jar has the SHA-256 .*: expected 00"):
        install.unpack(jar, "00", tmp_path)


def test_unpacked_tensorrt_libraries_are_not_downloaded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install.shutil, "which", lambda _: None)
    with pytest.raises(DeployError, match="mvn is missing"):
        install.fetch_libraries(tmp_path)
    libraries = tmp_path / f"libs-{install.VERSION}"
    libraries.mkdir()
    assert install.fetch_libraries(tmp_path) == libraries


def test_the_tensorrt_loader_loads_libraries_by_their_absolute_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    fake = types.SimpleNamespace(CDLL=lambda path, mode: loaded.append(path), RTLD_GLOBAL=256)
    monkeypatch.setitem(sys.modules, "ctypes", fake)
    exec(install.LOADER.format(folder="/opt/libs"), {})  # noqa: S102
    assert loaded == [
        f"/opt/libs/{name}" for name in ("libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10")
    ]
