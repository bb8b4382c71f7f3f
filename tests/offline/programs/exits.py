"""Logs what is wrong and exits, as a program without exceptions would."""

import sys

import pulumi

pulumi.log.error("sample:mode must be right")
sys.exit(3)
