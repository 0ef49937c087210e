"""``segserve serve``: TorchServe and the gateway in front of it, until a signal ends both.

segserve serve --port 8080
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segserve.config import ServeDefaults

INNER_PORTS = {"inference": 8085, "management": 8081, "metrics": 8082}
"""TorchServe's usual ports."""


def add_parser(subparsers: Any) -> None:
    """Add ``serve`` to the command line's subcommands."""
    parser = subparsers.add_parser(
        "serve",
        help="serve the archives of a model store",
        description="Start TorchServe with the archives of a model store, and the gateway in front of it. Ctrl-C or "
        "SIGTERM finishes what is in flight, then stops both. If TorchServe dies, the command ends with the reason. "
        "Limits and keys come from SEGSERVE_* variables, and so do the defaults of some options (in brackets below).",
        epilog="examples: segserve serve --port 8080 --models grounded_sam --workers 2 | "
        "segserve serve --multi-model --multi-model-dir models",
    )
    parser.add_argument("--host", help="where the gateway listens (default 127.0.0.1) [SEGSERVE_HOST]")
    parser.add_argument(
        "--port",
        type=int,
        help="the gateway's port (default 8080; 0: a free one) [SAGEMAKER_BIND_TO_PORT, SEGSERVE_PORT]",
    )
    parser.add_argument(
        "--models", metavar="A,B", help="names of the models to serve (default: every archive) [SEGSERVE_MODELS]"
    )
    parser.add_argument(
        "--model-store",
        type=Path,
        metavar="DIR",
        help="folder of the archives (default: model_store) [SEGSERVE_MODEL_STORE: several with : between them, the "
        "first that holds an archive counts]",
    )
    _add_model_loading(parser)
    parser.add_argument(
        "--detection-dir",
        type=Path,
        metavar="DIR",
        help="pictures and results of the detect-area routes (default: SEGSERVE_DETECTION_DIR, or none); made if it "
        "is not there",
    )
    profile = parser.add_argument_group("workers and batches (default: as the archives' profiles say)")
    profile.add_argument(
        "--profile", choices=("auto", "cpu", "gpu"), default="auto", help="default: gpu if there is one"
    )
    profile.add_argument(
        "--workers", type=int, metavar="N", help="processes per model [SAGEMAKER_MODEL_SERVER_WORKERS]"
    )
    profile.add_argument("--batch-size", type=int, metavar="N", help="most images that a worker takes at once")
    profile.add_argument("--batch-delay", type=int, metavar="MS", help="how long a worker waits for a full batch")
    inner = parser.add_argument_group("TorchServe (on loopback)")
    for name, port in INNER_PORTS.items():
        inner.add_argument(
            f"--torchserve-{name}-port",
            type=int,
            metavar="PORT",
            help=f"default {port}; 0: a free one [SAGEMAKER_SAFE_PORT_RANGE: a free one of it]",
        )
    inner.add_argument("--config", type=Path, metavar="FILE", help="default: config.properties here, if there is one")
    inner.add_argument(
        "--log-dir", type=Path, metavar="DIR", help="of torchserve.log (default logs) [SEGSERVE_LOG_DIR]"
    )
    inner.add_argument("--no-tokens", action="store_true", help="switch TorchServe's token check off")
    parser.set_defaults(run=run)


def _add_model_loading(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("SageMaker")
    group.add_argument(
        "--multi-model",
        action=argparse.BooleanOptionalAction,
        help="begin with the models that --models names (none by default), and load and unload others through "
        "/models, without a key, as SageMaker's multi-model hosting does [SAGEMAKER_MULTI_MODEL]",
    )
    group.add_argument(
        "--multi-model-dir",
        type=Path,
        metavar="DIR",
        help="models may be loaded from here and from the model store (default /opt/ml/models) "
        "[SEGSERVE_MULTI_MODEL_DIR]",
    )
    group.add_argument(
        "--sagemaker-runtime",
        action=argparse.BooleanOptionalAction,
        help="also answer AWS clients (boto3 with endpoint_url) as SageMaker's runtime does; for development "
        "[SEGSERVE_SAGEMAKER_RUNTIME]",
    )


def with_defaults(args: argparse.Namespace, defaults: ServeDefaults) -> argparse.Namespace:
    """The options, with defaults in place of those that are not given.

    model_store becomes the first of the folders that holds an archive, or the first.
    """
    from segserve.torchserve.archive import first_store
    from segserve.torchserve.ports import free_ports

    given = dict(vars(args))
    inner = [f"torchserve_{name}_port" for name in INNER_PORTS]
    free = dict(zip(inner, free_ports(len(inner), defaults.inner_ports), strict=True)) if defaults.inner_ports else {}
    usual = {
        "host": defaults.host,
        "port": defaults.port,
        "models": ",".join(defaults.models) or None,
        "log_dir": defaults.log_dir,
        "workers": defaults.workers,
        "multi_model": defaults.multi_model,
        "multi_model_dir": defaults.multi_model_dir,
        "sagemaker_runtime": defaults.sagemaker_runtime,
        **{name: free.get(name, port) for name, port in zip(inner, INNER_PORTS.values(), strict=True)},
    }
    given |= {name: value for name, value in usual.items() if given[name] is None}
    if given["model_store"] is None:
        given["model_store"] = first_store(defaults.model_stores, may_be_empty=given["multi_model"])
    return argparse.Namespace(**given)


def run(args: argparse.Namespace) -> int:
    """Serve until a signal comes. Returns 0 after a signal, else raises with the reason."""
    from segserve.cli.serving import Service
    from segserve.config import serve_defaults

    return Service(with_defaults(args, serve_defaults())).run()
