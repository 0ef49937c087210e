"""Calls to AWS: made, or in a dry run printed. Every one is checked against the service's description first.

A dry run with credentials asks AWS what is there and prints what would change; one without credentials takes an empty
account for granted, with the stand-ins ACCOUNT and REGION.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError

from failures import ATTEMPTS, DeploymentError, failure_of
from service_models import check, operation_model

ACCOUNT = "123456789012"
REGION = "us-east-1"
ABSENT = (
    *("ResourceNotFound", "ResourceNotFoundException", "NoSuchEntity", "RepositoryNotFoundException", "NotFound"),
    *("ImageNotFoundException", "404", "NoSuchBucket", "NoSuchKey", "NoSuchTagSet", "NotFoundException"),
    "ObjectNotFoundException",
)
"""The codes with which the services say that something is not there."""


class Calls:
    """The way to AWS of one run of a script.

    Args:
        region: None: as the environment or the profile says.
        profile: of the AWS configuration; None: the default one.
        dry_run: print what would change instead of changing it.
        say: takes the printed lines.

    Raises:
        DeploymentError: no credentials, no region or no such profile, unless it is a dry run without credentials.
    """

    def __init__(
        self,
        region: str | None = None,
        profile: str | None = None,
        dry_run: bool = False,
        say: Callable[[str], None] = print,
    ) -> None:
        self.dry_run = dry_run
        self.say = say
        self.changes = 0
        self._numbers = 0
        self._clients: dict[str, Any] = {}
        if dry_run:
            # A laptop has no instance role; without this the search for one takes seconds.
            os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
        # AWS's own command line reads both variables, botocore only the second.
        region = region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        try:
            self._session = boto3.session.Session(profile_name=profile, region_name=region)
            credentials = self._session.get_credentials()
        except BotoCoreError as error:
            raise failure_of(error, "AWS configuration") from error
        self.offline = dry_run and credentials is None
        if credentials is None and not dry_run:
            raise failure_of(NoCredentialsError(), "AWS configuration")
        if self._session.region_name is None and not self.offline:
            raise failure_of(NoRegionError(), "AWS configuration")
        self.region: str = self._session.region_name or REGION
        self.partition = self._session.get_partition_for_region(self.region)
        self._account: str | None = ACCOUNT if self.offline else None
        if self.offline:
            say(f"# dry run without credentials: account {ACCOUNT} and region {self.region} stand in, nothing is there")

    @property
    def account(self) -> str:
        """The number of the account."""
        if self._account is None:
            self._account = str((self.read("sts", "get_caller_identity") or {})["Account"])
        return self._account

    @property
    def dns_suffix(self) -> str:
        """The end of the partition's host names."""
        return "amazonaws.com.cn" if self.partition == "aws-cn" else "amazonaws.com"

    def arn(self, service: str, resource: str, region: str | None = None, account: str | None = None) -> str:
        """The ARN of a resource in this account and region; an empty text leaves a part out."""
        region = self.region if region is None else region
        return f"arn:{self.partition}:{service}:{region}:{self.account if account is None else account}:{resource}"

    def read(self, service: str, operation: str, **params: Any) -> dict[str, Any] | None:
        """The answer to a call that changes nothing; None where what it asks for is not there.

        Raises:
            DeploymentError: wrong parameters, or AWS did not answer as asked.
        """
        check(service, operation, params)
        if self.offline:
            self._print("read", service, operation, params)
            return None
        try:
            return self._ask(service, operation, params)
        except DeploymentError as error:
            if error.code in ABSENT or _says_absent(error):
                return None
            raise

    def pages(self, service: str, operation: str, key: str, **params: Any) -> list[Any]:
        """All entries of a listing, from all its pages.

        Args:
            key: of the answers, that holds the entries.
        """
        check(service, operation, params)
        if self.offline:
            self._print("read", service, operation, params)
            return []
        try:
            paginator = self._client(service).get_paginator(operation)
            return [entry for page in paginator.paginate(**params) for entry in page.get(key, ())]
        except (ClientError, BotoCoreError) as error:
            failure = failure_of(error, _name(service, operation))
            if failure.code in ABSENT:
                return []
            raise failure from error

    def change(self, service: str, operation: str, **params: Any) -> dict[str, Any]:
        """The answer to a call that changes something; empty in a dry run.

        Raises:
            DeploymentError: wrong parameters, or AWS did not do as asked.
        """
        check(service, operation, params)
        self.changes += 1
        if self.dry_run:
            self._print("change", service, operation, params)
            return {}
        return self._ask(service, operation, params)

    def upload(self, file: Path, bucket: str, key: str, **extra: Any) -> None:
        """Put a file into a bucket, in parts where it is large.

        Raises:
            DeploymentError: AWS did not take it.
        """
        params = {"Bucket": bucket, "Key": key, **extra}
        check("s3", "put_object", params)
        self.changes += 1
        if self.dry_run:
            self._print("change", "s3", "put_object", {**params, "Body": f"{file} ({file.stat().st_size:,} bytes)"})
            return
        try:
            self._client("s3").upload_file(str(file), bucket, key, ExtraArgs=extra)
        except (ClientError, BotoCoreError) as error:
            raise failure_of(error, "s3 PutObject") from error
        except Boto3Error as error:
            # The transfer manager wraps what went wrong into its text.
            raise DeploymentError(f"s3 PutObject: {' '.join(str(error).split())}") from error

    def _ask(self, service: str, operation: str, params: dict[str, Any]) -> dict[str, Any]:
        try:
            return dict(getattr(self._client(service), operation)(**params))
        except (ClientError, BotoCoreError) as error:
            raise failure_of(error, _name(service, operation)) from error

    def client(self, service: str, config: Config) -> Any:
        """A botocore client of one's own, for what these calls do not do."""
        try:
            return self._session.client(service, region_name=self.region, config=config)
        except BotoCoreError as error:
            raise failure_of(error, service) from error

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            retries = {"mode": "standard", "total_max_attempts": ATTEMPTS}
            self._clients[service] = self.client(service, Config(retries=retries, connect_timeout=10))
        return self._clients[service]

    def _print(self, kind: str, service: str, operation: str, params: dict[str, Any]) -> None:
        self._numbers += 1
        # Documents within, policies above all, are read more easily unfolded.
        shown = {name: _shown(value) for name, value in params.items()}
        told = json.dumps(shown, indent=None if kind == "read" else 2, default=str, ensure_ascii=False)
        self.say(f"{self._numbers:>2}. {kind:<6} {_name(service, operation)} {told}")


def _name(service: str, operation: str) -> str:
    return f"{service} {operation_model(service, operation).name}"


def _shown(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"({len(value):,} bytes)"
    return json.loads(value) if isinstance(value, str) and value.startswith('{"') else value


def _says_absent(error: DeploymentError) -> bool:
    """Whether the answer is SageMaker's way to say so: a ValidationException with a sentence."""
    return error.code == "ValidationException" and "Could not find" in str(error)
