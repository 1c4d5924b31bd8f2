"""Pictures of a topology: a text fit for a diff, and a Mermaid flowchart.

1. Both are made from `Topology.document()` alone, so they show what the JSON shows.
2. The same program gives the same text on every machine: no paths, no line numbers, no addresses.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tailrace.windows.duration import format_ms

_STRUCTURE = ("name", "kind", "from", "to")


def text(document: Mapping[str, Any]) -> str:
    """The topology as text, in the manner of Kafka Streams: nodes by sub-topology, with where each one's records go."""
    lines = [f"App: {document['app']}"]
    for part in document["sub_topologies"]:
        lines.append(
            f"  Sub-topology: {part['id']}" + (f" (stores: {', '.join(part['stores'])})" if part["stores"] else "")
        )
        for row in part["nodes"]:
            lines += _node(row)
    return "\n".join(lines) + "\n"


def _node(row: Mapping[str, Any]) -> list[str]:
    facts = _facts(row)
    lines = [f"    {row['kind'].capitalize()}: {row['name']}" + (f" ({', '.join(facts)})" if facts else "")]
    if row["to"]:
        lines.append(f"      --> {_ends(row['to'])}")
    if row["from"]:
        lines.append(f"      <-- {_ends(row['from'])}")
    return lines


def _ends(ends: Sequence[Sequence[str]]) -> str:
    return ", ".join(name if output == "main" else f"{name} [{output}]" for name, output in ends)


def _facts(row: Mapping[str, Any]) -> list[str]:
    facts: list[str] = []
    for key, value in row.items():
        if key in _STRUCTURE:
            continue
        name, shown = (key[:-3], format_ms(value)) if key.endswith("_ms") else (key, str(value))
        facts.append(f"{name.replace('_', ' ')}: {shown}")
    return facts


def mermaid(document: Mapping[str, Any]) -> str:
    """The topology as a Mermaid flowchart: a box per sub-topology, topics as cylinders between and beside them."""
    lines = ["flowchart TD"]
    topics: dict[str, str] = {}
    edges: list[str] = []
    for part in document["sub_topologies"]:
        lines.append(f"  subgraph sub{part['id']} [Sub-topology {part['id']}]")
        for row in part["nodes"]:
            node = _id(row["name"], part["id"])
            lines.append(f'    {node}["{_label(row)}"]')
            edges += [
                f"  {node} -->{'' if output == 'main' else f'|{output}|'} {_id(name, part['id'])}"
                for name, output in row["to"]
            ]
            if "topic" in row:
                topic = topics.setdefault(row["topic"], f"topic{len(topics)}")
                edges.append(f"  {topic} --> {node}" if row["kind"] == "source" else f"  {node} --> {topic}")
        lines.append("  end")
    lines += [f'  {node}[("{name}")]' for name, node in topics.items()]
    return "\n".join(lines + edges) + "\n"


def _id(name: str, part: int) -> str:
    return f"{name.replace('-', '_')}_{part}"


def _label(row: Mapping[str, Any]) -> str:
    facts = [fact for fact in _facts(row) if not fact.startswith(("topic:", "changelog:"))]
    return "<br>".join([row["name"], *facts]).replace('"', "'")
