"""Fixtures shared by all tests."""

from tests.openai_server import openai_server as openai_server
