"""Reference pages from the CRDs (as JSON) and crds/src/conditions.rs. Called by reference.sh."""

import json
import pathlib
import re
import sys

MADE = "<!-- Made by docs/reference.sh from crds/: change the types, not this page. -->\n"


def cell(text):
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


def begun(text):
    # Names of fields keep their first letter.
    return text[:1].upper() + text[1:] if text.split(" ")[0].rstrip(",:;").islower() else text


def kind_of(schema):
    if schema.get("x-kubernetes-int-or-string"):
        return "integer or string"
    kind = schema.get("type", "object")
    if kind == "array":
        return "list of " + kind_of(schema["items"])
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return "map"
    return schema.get("format", kind) if kind == "string" and schema.get("format") == "date-time" else kind


def bounds(schema):
    said = []
    if "enum" in schema:
        said.append("one of " + ", ".join(f"`{value}`" for value in schema["enum"] if value is not None))
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        said.append(f"{low:.0f} to {high:.0f}")
    elif low is not None:
        said.append(f"at least {low:.0f}")
    if "maxLength" in schema and "enum" not in schema:
        said.append(f"at most {schema['maxLength']} characters")
    if "maxItems" in schema:
        said.append(f"at most {schema['maxItems']}")
    return "; ".join(said)


def rows(schema, path, required, out):
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        needed = name in schema.get("required", [])
        meaning = cell(field.get("description", ""))
        limits = bounds(field if field.get("type") != "array" else {**field, **{k: v for k, v in field["items"].items() if k == "enum"}})
        rules = [rule["message"] for rule in field.get("x-kubernetes-validations", []) if "message" in rule]
        notes = ". ".join(begun(part.rstrip(".")) for part in [meaning, limits, *map(cell, rules)] if part)
        default = "*required*" if needed and required else f"`{json.dumps(field['default'])}`" if "default" in field else ""
        out.append(f"| `{here}` | {kind_of(field)} | {cell(default)} | {notes} |")
        inner = field["items"] if field.get("type") == "array" else field
        if name == "conditions":
            continue
        if inner.get("properties"):
            rows(inner, here + ("[]" if field.get("type") == "array" else ""), required, out)


def kind_page(crd):
    spec = crd["spec"]
    names, version = spec["names"], spec["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    kind = names["kind"]
    out = [MADE, f"# {kind}\n", cell(schema.get("description", "")) + "\n"]
    short = ", ".join(f"`{name}`" for name in names.get("shortNames", []))
    out.append(f"`{spec['group']}/{version['name']}`, {spec['scope'].lower()}; short name {short}; category `pgrail`.\n")
    columns = [column["name"] for column in version.get("additionalPrinterColumns", [])]
    out.append("Columns of `kubectl get`: " + ", ".join(columns) + ".\n")
    for part in ("spec", "status"):
        section = schema["properties"].get(part)
        if not section:
            continue
        out.append(f"## {part}\n")
        rules = [cell(rule["message"]) for rule in section.get("x-kubernetes-validations", []) if "message" in rule]
        for rule in rules:
            out.append(f"- {rule}")
        if rules:
            out.append("")
        table = []
        rows(section, part, part == "spec", table)
        if part == "spec":
            out += ["| Field | Type | Default | Meaning |", "| --- | --- | --- | --- |"]
        else:
            table = [re.sub(r"^(\| [^|]+ \| [^|]+ \|) [^|]* \|", r"\1", row) for row in table]
            out += ["| Field | Type | Meaning |", "| --- | --- | --- |"]
        out += table + [""]
    return kind, "\n".join(out).rstrip() + "\n"


def conditions_page(source):
    out = [MADE, "# Conditions, reasons and Events\n",
           "Every kind has `Ready`. `Stalled` is there, and `True`, only while something waits for its user to mend it.\n",
           "## Condition types\n", "| Type | Meaning when `True` |", "| --- | --- |"]
    documented, depth, doc = [], 0, []
    for line in source.splitlines():
        line = line.strip()
        if line.startswith("///"):
            doc.append(line[3:].strip())
            continue
        module = re.match(r"pub mod (\w+) \{", line)
        constant = re.match(r'pub const \w+: &str = "(\w+)";', line)
        text = cell(" ".join(doc))
        if module:
            depth += 1
            if depth == 1:
                documented.append(("\n## Reasons of every kind\n", None))
            else:
                documented.append((f"\n## {text.rstrip('.')}\n", None))
        elif constant:
            documented.append((constant.group(1), text))
        elif line == "}":
            depth -= 1
        doc = []
    for name, text in documented:
        if text is None:
            out += [name, "| Reason | Meaning |", "| --- | --- |"]
        else:
            out.append(f"| `{name}` | {text} |")
    return "\n".join(out).rstrip() + "\n"


def main():
    crds, conditions, made = (pathlib.Path(argument) for argument in sys.argv[1:4])
    for file in sorted(crds.glob("*.json")):
        kind, page = kind_page(json.loads(file.read_text()))
        (made / "kinds" / f"{kind.lower()}.md").write_text(page)
    (made / "conditions.md").write_text(conditions_page(conditions.read_text()))


main()
