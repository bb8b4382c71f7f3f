"""What AWS' clients raise, in the words of the person who can mend it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_FORBIDDEN = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}
_THROTTLED = {"Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException"}
_NOT_ENABLED = {"AuthFailure", "OptInRequired"}
_BAD_CREDENTIALS = {
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "RequestExpired",
    "UnrecognizedClientException",
}


@contextmanager
def explained(region: str, permission: str, error_type: type[Exception]) -> Iterator[None]:
    """Turn what boto3 raises inside into one ``error_type`` whose message says what to do."""
    from botocore.exceptions import (  # noqa: PLC0415 (as boto3)
        BotoCoreError,
        ClientError,
        ConnectionError,
        HTTPClientError,
        NoCredentialsError,
        PartialCredentialsError,
    )

    try:
        yield
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise error_type(
            f"no AWS credentials ({error}); set AWS_PROFILE or run aws sso login, with a role that may {permission}"
        ) from None
    except (ConnectionError, HTTPClientError) as error:
        raise error_type(f"AWS cannot be reached for {permission} in {region} ({error})") from None
    except ClientError as error:
        found = error.response.get("Error", {})
        code, message = found.get("Code", ""), found.get("Message", "")
        if code in _FORBIDDEN:
            reason = f"the AWS credentials lack the permission {permission}; allow it on resource *"
        elif code in _THROTTLED:
            reason = f"AWS throttles {permission}, also after waiting; try again in a minute"
        elif code in _NOT_ENABLED:
            reason = f"AWS refuses {permission}: region {region} is not enabled for the account, or the key is wrong"
        elif code in _BAD_CREDENTIALS:
            reason = f"AWS does not accept the credentials for {permission}: sign in again"
        else:
            reason = f"{permission} failed"
        raise error_type(f"{reason} ({code}: {message})") from None
    except BotoCoreError as error:
        raise error_type(f"{permission} failed: {error}") from None
