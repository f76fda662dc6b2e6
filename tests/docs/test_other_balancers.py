"""The configurations of nginx and HAProxy in the documents are ones that these accept."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.nginx_lab import NGINX, STREAM_MODULE
from tests.support.pages import Block, blocks, pages

PATHS = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"
HAPROXY = shutil.which("haproxy", path=PATHS)
BCRYPT = "$2y$05$" + "a" * 53


def shown(language: str) -> list[object]:
    return [pytest.param(block, id=block.where) for page in pages()
            if f"```{language}" in page.read_text() for block in blocks(page)
            if block.language == language]


def whole_nginx(block: Block, folder: Path) -> str:
    """The configuration around a piece of one: what it names and does not define comes with it."""
    text = block.text
    if re.search(r"^location", text, re.MULTILINE):
        text = f"server {{\nlisten 80;\n{text}\n}}"
    if not re.search(r"^(http|stream) \{", text, re.MULTILINE):
        text = f"http {{\n{text}\n}}"
    if not re.search(r"^events", text, re.MULTILINE):
        text = f"events {{}}\n{text}"
    named = set(re.findall(r"proxy_pass http://(\w+)[;/]", text))
    for name in named - set(re.findall(r"upstream (\w+)", text)):
        text = text.replace("http {", f"http {{\nupstream {name} {{ server 127.0.0.1:1; }}\n", 1)
    stream = f"load_module {STREAM_MODULE};\n" if "stream {" in text else ""
    (folder / "staff.htpasswd").write_text(f"anna:{BCRYPT}\n")
    return (stream + f"pid {folder}/nginx.pid;\nerror_log stderr;\n"
            + text.replace("/var/log/nginx", str(folder)))


@pytest.mark.skipif(NGINX is None or not STREAM_MODULE.exists(), reason="needs nginx")
@pytest.mark.parametrize("block", shown("nginx"))
def test_nginx_accepts_its_side(block: Block, tmp_path: Path) -> None:
    (tmp_path / "nginx.conf").write_text(whole_nginx(block, tmp_path))
    said = subprocess.run([str(NGINX), "-t", "-p", str(tmp_path), "-c", "nginx.conf"],
                          capture_output=True, text=True, check=False, timeout=30)
    assert said.returncode == 0, said.stderr


@pytest.mark.skipif(HAPROXY is None, reason="needs HAProxy")
@pytest.mark.parametrize("block", shown("haproxy"))
def test_haproxy_accepts_its_side(block: Block, tmp_path: Path) -> None:
    text = block.text
    if "defaults" not in text:
        text = "defaults\n  mode http\n  timeout connect 1s\n  timeout client 1m\n" \
               f"  timeout server 1m\n\n{text}"
    if not re.search(r"^(frontend|listen) ", text, re.MULTILINE):
        backend = re.findall(r"^backend (\w+)", text, re.MULTILINE)[0]
        text += f"\nfrontend any\n  bind 127.0.0.1:1\n  default_backend {backend}\n"
    (tmp_path / "haproxy.cfg").write_text(text)
    said = subprocess.run([str(HAPROXY), "-c", "-f", "haproxy.cfg"], cwd=tmp_path,
                          capture_output=True, text=True, check=False, timeout=30)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "WARNING" not in said.stderr
