"""Corrective RAG: documents are graded, and a web search mends what is missing.

START -> retrieve -> grade_documents -> (transform_query -> web_search_node -> generate | generate) -> END
"""

from __future__ import annotations

from typing import Any

from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

from orchestra_graph.testing import ScriptedExpert

LIBRARY = [
    Document("An agent's short-term memory is its context."),
    Document("Long-term memory is kept in a store outside the agent."),
    Document("Bread is baked at 230 degrees."),
]
WEB = {"Who won the 2024 Australian Open men's title?": "Jannik Sinner won the 2024 Australian Open men's title."}


class GraphState(TypedDict):
    question: str
    generation: str
    web_search: str
    documents: list[Document]


def retrieve(state: GraphState) -> dict[str, Any]:
    words = {word for word in state["question"].lower().strip("?").split() if len(word) > 4}
    found = [document for document in LIBRARY if words & set(document.page_content.lower().split())]
    return {"documents": found or LIBRARY[-1:], "question": state["question"]}


def decide_to_generate(state: GraphState) -> str:
    return "transform_query" if state["web_search"] == "Yes" else "generate"


def web_search_node(state: GraphState) -> dict[str, Any]:
    found = Document(WEB.get(state["question"], "nothing"))
    return {"documents": [*state["documents"], found]}


def build(
    grader: BaseChatModel, rewriter: BaseChatModel, writer: BaseChatModel
) -> StateGraph[GraphState, Any, Any, Any]:
    def grade_documents(state: GraphState) -> dict[str, Any]:
        good = [
            document
            for document in state["documents"]
            if grader.invoke(f"{state['question']}\n{document.page_content}").text == "yes"
        ]
        return {"documents": good, "web_search": "No" if len(good) == len(state["documents"]) else "Yes"}

    def transform_query(state: GraphState) -> dict[str, Any]:
        """Rewrites the question for a web search, and answers from what the search finds."""
        return {"question": rewriter.invoke(state["question"]).text}

    def generate(state: GraphState) -> dict[str, Any]:
        """Answers from the documents that were kept."""
        context = "\n".join(document.page_content for document in state["documents"])
        return {"generation": writer.invoke(f"{state['question']}\n{context}").text}

    graph = StateGraph(GraphState)
    graph.add_node("retrieve", retrieve)
    graph.add_node("grade_documents", grade_documents)
    graph.add_node("generate", generate)
    graph.add_node("transform_query", transform_query)
    graph.add_node("web_search_node", web_search_node)
    graph.add_edge(START, "retrieve")
    graph.add_edge("retrieve", "grade_documents")
    graph.add_conditional_edges(
        "grade_documents",
        decide_to_generate,
        {"transform_query": "transform_query", "generate": "generate"},
    )
    graph.add_edge("transform_query", "web_search_node")
    graph.add_edge("web_search_node", "generate")
    graph.add_edge("generate", END)
    return graph


def scripted_models() -> tuple[ScriptedExpert, ScriptedExpert, ScriptedExpert]:
    """Stand for grader, rewriter and writer."""
    grader = ScriptedExpert(lambda prompt: "yes" if "memory" in prompt.split("\n")[1] else "no")
    rewriter = ScriptedExpert("Who won the 2024 Australian Open men's title?")
    writer = ScriptedExpert(lambda prompt: f"It is said: {prompt.splitlines()[-1]}")
    return grader, rewriter, writer
