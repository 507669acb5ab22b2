"""Demonstrations: the decisions of any router, written as another one would have read and replied.

A run of a program, or of a model behind an API, has no token ids that a policy could learn from. A `Renderer` replays
its turns through a named protocol, chat template and tokenizer, and gives the run captures, so that rows are made of it
as of any other (fidelity `rendered`; there are no logprobs):

    renderer = Renderer.from_folder("model/", "conversation")
    rows = [row for run in runs for row in rows_of(renderer.render(run))]

Texts are tokenised here and nowhere else in this package. Left out: what was said before the question, which the run
log does not hold, and the reasoning of the one who decided.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from langchain_core.messages import AIMessage, BaseMessage

from orchestra_graph.catalog import Catalog
from orchestra_graph.errors import ConfigError
from orchestra_graph.protocols.base import Protocol, Situation, View
from orchestra_graph.protocols.conversation import ConversationProtocol
from orchestra_graph.protocols.scan import ScanProtocol
from orchestra_graph.routers.template import shown_messages
from orchestra_graph.runlog.record import Capture, Trajectory
from orchestra_graph.turns import Turn

PROTOCOLS: Final[Mapping[str, type[Protocol]]] = {
    protocol.name: protocol for protocol in (ConversationProtocol, ScanProtocol)
}
"""Those that say which replies lead to a decision."""


class Renderer:
    """Gives runs the tokens of a protocol.

    Args:
        tokenizer: A tokenizer of transformers, or what has its `apply_chat_template` and can be called on a text.
        protocol: What the policy will read, and how it replies.
        name: What runs say of the tokenizer.
        chat_template: Jinja; by default the tokenizer's own.
        options: Variables of the template, for example `{"enable_thinking": False}`.
    """

    def __init__(
        self,
        tokenizer: Any,
        protocol: Protocol,
        *,
        name: str,
        chat_template: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        template = chat_template or tokenizer.chat_template
        if not isinstance(template, str):
            raise ConfigError(f"the tokenizer {name!r} has no single chat template; fix: name one")
        self.protocol = protocol
        self.name = name
        self.template_hash = hashlib.sha256(template.encode()).hexdigest()
        self._tokenizer = tokenizer
        self._options = {"chat_template": template, **(options or {})}

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        protocol: str = ConversationProtocol.name,
        *,
        chat_template: str | Path | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Renderer:
        """Read the tokenizer of a model.

        Args:
            folder: As `save_pretrained` of transformers writes it.
            protocol: A name of `PROTOCOLS`.
            chat_template: A file, where it is not the folder's own.
            options: Variables of the template.

        Raises:
            ConfigError: There is no such protocol, tokenizer or template.
        """
        from transformers import AutoTokenizer  # noqa: PLC0415  (takes seconds)

        if protocol not in PROTOCOLS:
            raise ConfigError(f"protocol = {protocol!r}; expected one of {', '.join(PROTOCOLS)}")
        if not (Path(folder) / "tokenizer.json").is_file():
            raise ConfigError(f"{folder}: no tokenizer.json there; expected the folder of a model")
        template = None
        if chat_template is not None:
            try:
                template = Path(chat_template).read_text(encoding="utf-8")
            except OSError as error:
                raise ConfigError(f"{chat_template}: cannot be read: {error.strerror}") from error
        tokenizer = AutoTokenizer.from_pretrained(folder)
        name = Path(folder).resolve().name
        return cls(tokenizer, PROTOCOLS[protocol](), name=name, chat_template=template, options=options)

    def render(self, run: Trajectory) -> Trajectory:
        """The run with the captures that its decisions would have left.

        A turn to which no reply of the protocol leads has none. Neither has any turn of a run whose catalog is not
        stated, or cannot be spoken of; `rows_of` then notes them.

        Raises:
            ConfigError: Template or tokenizer do not fit the protocol.
        """
        captures: dict[str, Capture] = {}
        turns: list[Turn] = []
        for place, turn in enumerate(run.turns):
            made = list(self._captures(run, place))
            turns.append({**turn, "captures": [capture.id for capture in made]})
            captures |= {capture.id: capture for capture in made}
        return run.model_copy(
            update={
                "protocol": self.protocol.name,
                "turns": turns,
                "captures": captures,
                "runs": {id: self.render(nested) for id, nested in run.runs.items()},
                "tokenizer": self.name,
                "template_hash": self.template_hash,
                "constraint": None,
                "logprobs_mode": None,
                "sampling": {},
            }
        )

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, control tokens among it."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=False)
        return text

    def _captures(self, run: Trajectory, place: int) -> Iterator[Capture]:
        turn = run.turns[place]
        if run.catalog is None or not self._can_speak_of(run.catalog):
            return
        situation = Situation(
            question=run.task.question,
            catalog=run.catalog,
            preferences=run.preferences,
            budget=run.budget,
            turns={before["id"]: before for before in run.turns[:place]},
            turn_id=turn["id"],
        )
        for n, (view, reply) in enumerate(self.protocol.replies(situation, turn["decision"])):
            prompt = self._text(view.messages, view, add_generation_prompt=True)
            yield Capture(
                id=f"{turn['id']}:{n}",
                turn=turn["id"],
                prompt_token_ids=self._ids(prompt),
                token_ids=self._reply_ids(view, reply, prompt),
            )

    def _can_speak_of(self, catalog: Catalog) -> bool:
        try:
            self.protocol.check(catalog)
        except ConfigError:
            return False
        return True

    def _reply_ids(self, view: View, reply: AIMessage, prompt: str) -> list[int]:
        limit = self.protocol.sampling.get("max_tokens")
        if limit is not None and not reply.tool_calls:
            return self._short(reply.text, limit)
        whole = self._text([*view.messages, reply], view, add_generation_prompt=False)
        if not whole.startswith(prompt):
            raise ConfigError(
                f"chat template of {self.name!r}: a reply is not shown behind the generation prompt; "
                "fix: name a template that keeps prefixes, or its variables"
            )
        ids, end = self._ids(whole.removeprefix(prompt)), self._tokenizer.eos_token_id
        if end not in ids:
            raise ConfigError(
                f"chat template of {self.name!r}: a reply does not end with {self._tokenizer.eos_token!r}, the "
                "tokenizer's eos_token, so a policy would not learn to stop; fix: set the token that ends replies"
            )
        return ids[: ids.index(end) + 1]

    def _short(self, text: str, limit: int) -> list[int]:
        """A reply of a protocol that reads so many tokens: the server cuts it off there, so nothing ends it."""
        ids = self._ids(text)
        if len(ids) > limit:
            raise ConfigError(
                f"tokenizer {self.name!r}: {text!r} is {len(ids)} tokens; the protocol {self.protocol.name} reads "
                f"{limit}; fix: take the tokenizer of a router that was made for it"
            )
        return ids

    def _text(self, messages: Sequence[BaseMessage], view: View, *, add_generation_prompt: bool) -> str:
        text: str = self._tokenizer.apply_chat_template(
            shown_messages(messages),
            tools=view.tools or None,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            **self._options,
        )
        return text

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids
