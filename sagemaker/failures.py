"""What goes wrong with AWS, as one line that says what to do. Foreign exceptions are translated here only."""

from __future__ import annotations

from botocore import exceptions

ATTEMPTS = 8
"""Of one call in all, with botocore's growing pauses, where AWS is busy or asks to slow down."""


class DeploymentError(Exception):
    """A failure that is told to the caller as one line.

    Attributes:
        code: AWS's own word for it, or None where it did not come from a service.
    """

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


_CREDENTIALS = (
    *("ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException"),
    *("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidSignatureException", "AuthFailure", "RequestExpired"),
)
_PERMISSIONS = (
    "403",
    "AccessDenied",
    "AccessDeniedException",
    "UnauthorizedOperation",
    "NotAuthorized",
    "AuthorizationError",
)
_QUOTAS = (
    *("ResourceLimitExceeded", "ServiceQuotaExceededException", "LimitExceeded", "LimitExceededException"),
    *("TooManyBuckets", "RepositoryLimitExceeded", "TopicLimitExceeded"),
)
_THROTTLES = (
    *("Throttling", "ThrottlingException", "ThrottledException", "TooManyRequestsException", "RequestLimitExceeded"),
    *("SlowDown", "RequestThrottled", "BandwidthLimitExceeded", "PriorRequestNotComplete"),
)


def failure_of(error: exceptions.BotoCoreError | exceptions.ClientError, asked: str) -> DeploymentError:
    """The failure that a botocore exception stands for.

    Args:
        asked: the call, such as ``sagemaker CreateModel``.
    """
    if isinstance(error, exceptions.ClientError):
        return _of_answer(error, asked)
    told = f"{asked}: {type(error).__name__}: {' '.join(str(error).split())}"
    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        told = "no AWS credentials: run `aws configure` or set AWS_PROFILE; --dry-run works without them."
    elif isinstance(error, exceptions.NoRegionError):
        told = "no AWS region: give --region eu-central-1, or set AWS_REGION."
    elif isinstance(error, exceptions.ProfileNotFound):
        told = f"{error}. Profiles are in ~/.aws/config."
    elif isinstance(error, exceptions.EndpointConnectionError | exceptions.ConnectTimeoutError):
        told = f"{asked}: AWS cannot be reached ({error}). Check the network and --region."
    return DeploymentError(told)


def _of_answer(error: exceptions.ClientError, asked: str) -> DeploymentError:
    answer = error.response.get("Error", {})
    code = str(answer.get("Code", ""))
    said = " ".join(str(answer.get("Message", "")).split()) or "no reason given"
    if code in _CREDENTIALS:
        return DeploymentError(f"{asked}: the AWS credentials are not valid or have expired ({said}).", code)
    if code in _PERMISSIONS:
        hint = "What these scripts need is listed in sagemaker/policies/deployer.json."
        return DeploymentError(f"{asked}: not permitted ({said}). {hint}", code)
    if code in _QUOTAS:
        hint = "Ask for more in Service Quotas, or take another --instance-type or a smaller count."
        return DeploymentError(f"{asked}: over a quota of the account ({said}). {hint}", code)
    if code in _THROTTLES:
        return DeploymentError(
            f"{asked}: AWS asks to slow down, after {ATTEMPTS} attempts too ({said}). Run this again in a minute.", code
        )
    return DeploymentError(f"{asked}: {code or 'error'}: {said}", code)
