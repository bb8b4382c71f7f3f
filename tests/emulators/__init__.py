"""AWS as far as it can be had without an account: moto and ministack as servers, and a stub for what both lack.

They are installed by ``make .venv/emulators/.installed``, in an environment of their own. Use them from a test::

    with emulated_aws(Account()) as aws:
        subprocess.run([...], env={**os.environ, **aws.environment})

or around any command, ``python -m tests.emulators --help``.
"""

from tests.emulators.servers import Emulator, emulated_aws, ministack, moto
from tests.emulators.stub import Account

__all__ = ["Account", "Emulator", "emulated_aws", "ministack", "moto"]
