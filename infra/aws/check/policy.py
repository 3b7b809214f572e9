"""Decides as AWS does: what one request may, under the policies that apply to it.

Only what our policies use, and an error for everything else: an operator that is silently not understood would be a hole.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html and …_elements_condition_operators.html
"""
import fnmatch


def listed(value) -> list:
    return value if isinstance(value, list) else [value]


def like(pattern: str, value: str) -> bool:
    """`*` and `?`; a bracket is a character as any other."""
    return fnmatch.fnmatchcase(value, pattern.replace("[", "[[]"))


POSITIVE = {
    "StringEquals": lambda want, have: want == have,
    "StringEqualsIgnoreCase": lambda want, have: want.lower() == have.lower(),
    "StringLike": like,
    "ArnEquals": like,
    "Bool": lambda want, have: want.lower() == have.lower(),
}
NEGATIVE = {"StringNotEquals": "StringEquals", "StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase", "ArnNotEquals": "ArnEquals"}


def condition_holds(operator: str, key: str, wanted, context: dict) -> bool:
    have = {name.lower(): value for name, value in context.items()}.get(key.lower())  # keys are compared without case
    if operator == "Null":
        return (have is None) == (wanted == "true")
    if operator in NEGATIVE:  # also true where the key is absent
        return have is None or not any(POSITIVE[NEGATIVE[operator]](want, have) for want in listed(wanted))
    return have is not None and any(POSITIVE[operator](want, have) for want in listed(wanted))


def principal_matches(principal, caller: str, account: str) -> bool:
    if principal == "*":
        return True
    for kind, names in principal.items():
        for name in listed(names):
            if name == "*" and kind == "AWS" or name == caller or name == f"arn:aws:iam::{account}:root" and f"::{account}:" in caller:
                return True
    return False


def applies(statement: dict, action: str, resource: str, caller: str, context: dict, account: str) -> bool:
    unknown = set(statement) - {"Sid", "Effect", "Principal", "Action", "Resource", "Condition"}
    if unknown:
        raise ValueError(f"not evaluated: {unknown}")
    return (
        ("Principal" not in statement or principal_matches(statement["Principal"], caller, account))
        and any(like(pattern.lower(), action.lower()) for pattern in listed(statement["Action"]))
        and any(like(pattern, resource) for pattern in listed(statement["Resource"]))
        and all(condition_holds(operator, key, wanted, context)
                for operator, keys in statement.get("Condition", {}).items() for key, wanted in keys.items())
    )


def allows(resource_policy: dict, identity_policy: dict, *, action: str, resource: str, caller: str, context: dict, account: str = "111122223333") -> bool:
    """Within one account: an explicit deny anywhere ends it; else an allow. For a KMS key an identity's allow counts only where the
    key policy hands over to IAM (a statement for the account's root), which the caller of this asks for by passing that policy."""
    effects = {name: {s["Effect"] for s in listed(policy.get("Statement", [])) if applies(s, action, resource, caller, context, account)}
               for name, policy in (("resource", resource_policy), ("identity", identity_policy))}
    if any("Deny" in found for found in effects.values()):
        return False
    if action.startswith("kms:"):
        return "Allow" in effects["resource"]
    return any("Allow" in found for found in effects.values())
