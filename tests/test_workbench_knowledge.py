"""The knowledge base: its documents tell its facts, and search finds them by name."""

from __future__ import annotations

from orchestra_graph.workbench.knowledge import COUNTS, KnowledgeBase, find_fact, read_documents, render
from orchestra_graph.workbench.relations import RELATIONS

KNOWLEDGE = KnowledgeBase(0)


def test_it_is_large_and_follows_from_its_seed() -> None:
    assert len(KNOWLEDGE.documents) == sum(COUNTS.values()) > 300
    assert len({document.title for document in KNOWLEDGE.documents}) == len(KNOWLEDGE.documents)
    assert KNOWLEDGE.documents == KnowledgeBase(0).documents != KnowledgeBase(1).documents


def test_every_fact_can_be_read_from_the_document_of_its_subject() -> None:
    documents = {document.title: document for document in KNOWLEDGE.documents}
    assert len(KNOWLEDGE.facts) > 1000
    for (subject, relation), thing in KNOWLEDGE.facts.items():
        assert find_fact(documents[subject], relation) == thing


def test_a_document_tells_nothing_of_other_kinds() -> None:
    river = next(document for document in KNOWLEDGE.documents if document.title.startswith("River "))
    told = [relation.name for relation in RELATIONS if find_fact(river, relation.name)]
    assert sorted(told) == ["fish", "mouth"]


def test_search_finds_each_thing_first_by_its_name() -> None:
    for document in KNOWLEDGE.documents:
        found = KNOWLEDGE.search(document.title)
        assert found[0] == document
        assert list(read_documents(render(found))) == found


def test_search_takes_any_query() -> None:
    assert KNOWLEDGE.search("") == KNOWLEDGE.search('"?!*') == []
    assert KNOWLEDGE.search("NEAR(a b) AND NOT title:x OR *") is not None
    assert len(KNOWLEDGE.search("was born in", limit=7)) == 7
    assert render([]) == "No document found."
