"""Schemas as real APIs have them, for `schemas.py`: invoices, events, issues, OpenAPI, Kubernetes, trees, unions.

Texts and lists are short, so that a small model comes to an end.
"""


def record(properties, required=None):
    """An object with these properties and no others. All of them are required unless said otherwise."""
    required = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def text(length):
    return {"type": "string", "maxLength": length}


def integer(least=None, most=None):
    bounds = {"minimum": least, "maximum": most}
    return {"type": "integer", **{word: bound for word, bound in bounds.items() if bound is not None}}


def number(**bounds):
    return {"type": "number", **bounds}


def one_of(*values):
    return {"enum": list(values)}


def array(items, most=3, **more):
    return {"type": "array", "items": items, "maxItems": most, **more}


def formatted(name):
    return {"type": "string", "format": name}


def pattern(expression):
    return {"type": "string", "pattern": expression}


def ref(name):
    return {"$ref": f"#/$defs/{name}"}


def nullable(schema):
    return {"anyOf": [schema, {"type": "null"}]}


def defining(schema, **definitions):
    return {**schema, "$defs": definitions}


BOOLEAN = {"type": "boolean"}
MONEY = record({"amount": number(minimum=0, maximum=100000), "currency": one_of("EUR", "USD", "GBP", "JPY")})
ADDRESS = record(
    {"street": text(30), "city": text(20), "postal_code": pattern("^[0-9]{5}$"), "country": pattern("^[A-Z]{2}$")}
)

SCHEMAS = {
    "invoice": defining(
        record(
            {
                "number": pattern("^INV-[0-9]{4}$"),
                "issued": formatted("date"),
                "seller": ref("party"),
                "lines": array(ref("line"), 2, minItems=1),
                "total": ref("money"),
            }
        ),
        party=record({"name": text(25), "tax_id": nullable(pattern("^[A-Z]{2}[0-9]{8}$"))}),
        line=record({"text": text(25), "quantity": integer(1, 99), "price": ref("money")}),
        money=MONEY,
    ),
    "calendar_event": record(
        {
            "summary": text(30),
            "start": formatted("date-time"),
            "end": formatted("date-time"),
            "attendees": array(formatted("email"), 3),
            "status": one_of("confirmed", "tentative", "cancelled"),
        }
    ),
    "issue": defining(
        record(
            {
                "number": integer(1, 99999),
                "title": text(40),
                "state": one_of("open", "closed"),
                "labels": array(ref("label"), 3),
                "assignee": nullable(ref("user")),
                "locked": BOOLEAN,
            }
        ),
        label=record({"name": text(15), "color": pattern("^[0-9a-f]{6}$")}),
        user=record({"login": pattern("^[a-z][a-z0-9-]{0,20}$"), "id": integer(1)}),
    ),
    "pull_request": record(
        {
            "title": text(40),
            "head": pattern("^[a-z0-9/_-]{1,30}$"),
            "base": one_of("main", "develop"),
            "draft": BOOLEAN,
            "reviewers": array(pattern("^[a-z0-9-]{1,15}$"), 3),
            "additions": integer(0),
            "deletions": integer(0),
        }
    ),
    "weather_report": record(
        {
            "station": pattern("^[A-Z]{4}$"),
            "observed": formatted("date-time"),
            "temperature_c": number(minimum=-90, maximum=60),
            "wind": record(
                {
                    "speed_kmh": number(minimum=0, maximum=400),
                    "direction": one_of("N", "NE", "E", "SE", "S", "SW", "W", "NW"),
                }
            ),
            "conditions": array(one_of("rain", "snow", "fog", "clear", "clouds"), 2, minItems=1),
        }
    ),
    "user_profile": record(
        {
            "id": formatted("uuid"),
            "name": text(25),
            "email": formatted("email"),
            "age": nullable(integer(0, 130)),
            "roles": array(one_of("admin", "editor", "viewer"), 3),
        },
        ["id", "name", "email"],
    ),
    "address": ADDRESS,
    "payment_intent": record(
        {
            "id": pattern("^pi_[A-Za-z0-9]{8}$"),
            "amount": integer(1, 10000000),
            "currency": pattern("^[a-z]{3}$"),
            "status": one_of("requires_payment_method", "requires_action", "processing", "succeeded", "canceled"),
            "metadata": {"type": "object", "additionalProperties": text(20), "maxProperties": 2},
        }
    ),
    "shipment": defining(
        record(
            {
                "tracking": pattern("^[0-9A-Z]{10,12}$"),
                "carrier": one_of("dhl", "ups", "fedex", "post"),
                "from": ref("address"),
                "to": ref("address"),
                "weight_kg": number(exclusiveMinimum=0, maximum=70),
            }
        ),
        address=ADDRESS,
    ),
    "product": record(
        {
            "sku": pattern("^[A-Z]{3}-[0-9]{3}$"),
            "name": text(30),
            "price": number(minimum=0, multipleOf=0.01, maximum=9999),
            "tags": array(text(12), 3),
            "dimensions": {
                "type": "array",
                "prefixItems": [number(), number(), number()],
                "items": False,
                "minItems": 3,
            },
        }
    ),
    "open_api_parameter": record(
        {
            "name": pattern("^[a-z_]{1,20}$"),
            "in": one_of("query", "header", "path", "cookie"),
            "required": BOOLEAN,
            "schema": record(
                {"type": one_of("string", "integer", "number", "boolean", "array"), "format": text(10)}, ["type"]
            ),
        },
        ["name", "in"],
    ),
    "open_api_response": record(
        {
            "description": text(40),
            "headers": {
                "type": "object",
                "patternProperties": {
                    "^X-[A-Z][a-z]{2,8}$": record({"schema": record({"type": one_of("string", "integer")})})
                },
                "additionalProperties": False,
                "maxProperties": 2,
            },
        },
        ["description"],
    ),
    "json_rpc": {
        "anyOf": [
            record({"jsonrpc": {"const": "2.0"}, "id": integer(0), "result": text(30)}),
            record(
                {
                    "jsonrpc": {"const": "2.0"},
                    "id": nullable(integer(0)),
                    "error": record({"code": integer(-32768, -32000), "message": text(40)}),
                }
            ),
        ]
    },
    "geo_json_point": record(
        {
            "type": {"const": "Feature"},
            "geometry": record(
                {
                    "type": {"const": "Point"},
                    "coordinates": {
                        "type": "array",
                        "prefixItems": [number(minimum=-180, maximum=180), number(minimum=-90, maximum=90)],
                        "items": False,
                        "minItems": 2,
                    },
                }
            ),
            "properties": {"type": "object", "additionalProperties": text(15), "maxProperties": 2},
        }
    ),
    "geo_json_polygon": defining(
        record(
            {"type": {"const": "Polygon"}, "coordinates": array(array(ref("position"), 4, minItems=4), 1, minItems=1)}
        ),
        position={"type": "array", "prefixItems": [number(), number()], "items": False, "minItems": 2},
    ),
    "recipe": record(
        {
            "title": text(30),
            "servings": integer(1, 12),
            "ingredients": array(
                record(
                    {
                        "name": text(18),
                        "amount": number(minimum=0, maximum=2000),
                        "unit": one_of("g", "ml", "piece", "tsp", "tbsp"),
                    }
                ),
                3,
                minItems=1,
            ),
            "steps": array(text(40), 2, minItems=1),
        }
    ),
    "book": record(
        {
            "isbn": pattern("^97[89]-[0-9]{10}$"),
            "title": text(40),
            "authors": array(text(20), 2, minItems=1),
            "published": formatted("date"),
            "pages": integer(1, 2000),
        }
    ),
    "flight": record(
        {
            "number": pattern("^[A-Z]{2}[0-9]{3,4}$"),
            "from": pattern("^[A-Z]{3}$"),
            "to": pattern("^[A-Z]{3}$"),
            "departure": formatted("date-time"),
            "duration": formatted("duration"),
            "seats": array(pattern("^[1-9][0-9]?[A-F]$"), 4),
        }
    ),
    "sensor_reading": record(
        {
            "device": formatted("uuid"),
            "at": formatted("date-time"),
            "values": {
                "type": "object",
                "patternProperties": {"^(temp|hum|co2)$": number()},
                "additionalProperties": False,
                "minProperties": 1,
                "maxProperties": 2,
            },
        }
    ),
    "sentiment": record(
        {
            "sentiment": one_of("positive", "neutral", "negative"),
            "confidence": number(minimum=0, maximum=1),
            "aspects": array(record({"aspect": text(15), "score": integer(-5, 5)}), 2),
        }
    ),
    "entities": record(
        {
            "entities": array(
                record(
                    {
                        "text": text(20),
                        "label": one_of("PERSON", "ORG", "PLACE", "DATE"),
                        "start": integer(0, 1000),
                        "end": integer(0, 1000),
                    }
                ),
                3,
                minItems=1,
            )
        }
    ),
    "sql_plan": defining(
        ref("node"),
        node={
            "anyOf": [
                record({"op": {"const": "scan"}, "table": pattern("^[a-z_]{1,15}$")}),
                record({"op": {"const": "filter"}, "input": ref("node"), "predicate": text(25)}),
                record({"op": {"const": "join"}, "left": ref("node"), "right": ref("node"), "on": text(20)}),
            ]
        },
    ),
    "expression_tree": defining(
        ref("expr"),
        expr={
            "anyOf": [
                {"type": "number"},
                record(
                    {
                        "op": one_of("+", "-", "*", "/"),
                        "args": {"type": "array", "items": ref("expr"), "minItems": 2, "maxItems": 2},
                    }
                ),
            ]
        },
    ),
    "file_tree": defining(
        ref("entry"),
        entry={
            "anyOf": [
                record({"kind": {"const": "file"}, "name": text(15), "bytes": integer(0)}),
                record({"kind": {"const": "folder"}, "name": text(15), "entries": array(ref("entry"), 2)}),
            ]
        },
    ),
    "linked_list": defining(ref("node"), node=record({"value": integer(), "next": nullable(ref("node"))})),
    "chat_message": record(
        {
            "role": one_of("system", "user", "assistant", "tool"),
            "content": {
                "anyOf": [
                    text(40),
                    array(
                        {
                            "anyOf": [
                                record({"type": {"const": "text"}, "text": text(25)}),
                                record(
                                    {
                                        "type": {"const": "image_url"},
                                        "image_url": record(
                                            {"url": formatted("uri"), "detail": one_of("low", "high", "auto")}, ["url"]
                                        ),
                                    }
                                ),
                            ]
                        },
                        2,
                    ),
                ]
            },
        }
    ),
    "tool_definition": record(
        {
            "type": {"const": "function"},
            "function": record(
                {"name": pattern("^[a-z_]{1,20}$"), "description": text(40), "strict": BOOLEAN}, ["name"]
            ),
        }
    ),
    "kubernetes_container": record(
        {
            "name": pattern("^[a-z]([-a-z0-9]{0,15}[a-z0-9])?$"),
            "image": pattern("^[a-z]+/[a-z]+:[0-9]\\.[0-9]$"),
            "ports": array(
                record({"containerPort": integer(1, 65535), "protocol": one_of("TCP", "UDP")}, ["containerPort"]), 2
            ),
            "env": array(record({"name": pattern("^[A-Z_]{1,12}$"), "value": text(15)}), 2),
        },
        ["name", "image"],
    ),
    "docker_compose_service": record(
        {
            "image": text(25),
            "restart": one_of("no", "always", "on-failure", "unless-stopped"),
            "ports": array(pattern("^[0-9]{2,5}:[0-9]{2,5}$"), 2),
            "depends_on": array(pattern("^[a-z]{1,10}$"), 2),
        },
        ["image"],
    ),
    "package_manifest": record(
        {
            "name": pattern("^[a-z][a-z0-9-]{0,20}$"),
            "version": pattern("^[0-9]{1,2}\\.[0-9]{1,2}\\.[0-9]{1,2}$"),
            "license": one_of("MIT", "Apache-2.0", "BSD-3-Clause"),
            "dependencies": {
                "type": "object",
                "additionalProperties": pattern("^\\^[0-9]\\.[0-9]$"),
                "maxProperties": 2,
            },
        },
        ["name", "version"],
    ),
    "http_log": record(
        {
            "time": formatted("date-time"),
            "client": {"anyOf": [formatted("ipv4"), formatted("ipv6")]},
            "method": one_of("GET", "POST", "PUT", "DELETE"),
            "path": pattern("^/[a-z0-9/]{0,20}$"),
            "status": integer(100, 599),
            "bytes": integer(0),
        }
    ),
    "dns_record": {
        "anyOf": [
            record(
                {
                    "type": {"const": "A"},
                    "name": formatted("hostname"),
                    "value": formatted("ipv4"),
                    "ttl": integer(60, 86400),
                }
            ),
            record(
                {
                    "type": {"const": "AAAA"},
                    "name": formatted("hostname"),
                    "value": formatted("ipv6"),
                    "ttl": integer(60, 86400),
                }
            ),
            record(
                {
                    "type": {"const": "MX"},
                    "name": formatted("hostname"),
                    "priority": integer(0, 100),
                    "value": formatted("hostname"),
                }
            ),
        ]
    },
    "bank_transfer": record(
        {
            "iban": pattern("^[A-Z]{2}[0-9]{2}[A-Z0-9]{11,16}$"),
            "amount": number(exclusiveMinimum=0, maximum=50000),
            "reference": text(35),
            "execute": nullable(formatted("date")),
        }
    ),
    "medication": record(
        {
            "name": text(20),
            "dose_mg": number(exclusiveMinimum=0, maximum=2000),
            "frequency": one_of("daily", "twice daily", "weekly"),
            "times": array(formatted("time"), 3, minItems=1),
        }
    ),
    "patient": record(
        {
            "id": pattern("^P[0-9]{6}$"),
            "birth_date": formatted("date"),
            "gender": one_of("female", "male", "other", "unknown"),
            "contacts": array(record({"system": one_of("phone", "email"), "value": text(25)}), 2),
        }
    ),
    "job_posting": record(
        {
            "title": text(30),
            "remote": BOOLEAN,
            "salary": nullable(
                {
                    "type": "object",
                    "properties": {
                        "min": integer(0, 500000),
                        "max": integer(0, 500000),
                        "currency": one_of("EUR", "USD"),
                    },
                    "required": ["min", "max", "currency"],
                    "additionalProperties": False,
                }
            ),
            "skills": array(text(15), 4, minItems=1),
        }
    ),
    "quiz_question": record(
        {
            "question": text(60),
            "options": {"type": "array", "items": text(20), "minItems": 4, "maxItems": 4},
            "answer": integer(0, 3),
        }
    ),
    "survey_answer": {
        "type": "object",
        "properties": {"q1": one_of("yes", "no"), "q2": integer(1, 5), "q3": text(40)},
        "required": ["q1", "q2"],
    },
    "color_palette": record({"name": text(20), "colors": array(pattern("^#[0-9a-fA-F]{6}$"), 5, minItems=3)}),
    "chess_move": record(
        {
            "from": pattern("^[a-h][1-8]$"),
            "to": pattern("^[a-h][1-8]$"),
            "piece": one_of("king", "queen", "rook", "bishop", "knight", "pawn"),
            "promotion": nullable(one_of("queen", "rook", "bishop", "knight")),
        }
    ),
    "music_track": record(
        {
            "title": text(30),
            "artist": text(25),
            "duration_ms": integer(1000, 3600000),
            "explicit": BOOLEAN,
            "genres": array(one_of("rock", "pop", "jazz", "classical", "metal", "folk"), 3),
        }
    ),
    "podcast_feed": record(
        {
            "title": text(30),
            "link": formatted("uri"),
            "items": array(
                record({"guid": formatted("uuid"), "title": text(25), "published": formatted("date-time")}),
                1,
                minItems=1,
            ),
        }
    ),
    "feature_flag": record(
        {
            "key": pattern("^[a-z]+(-[a-z]+){0,2}$"),
            "enabled": BOOLEAN,
            "rollout": record({"percent": integer(0, 100), "groups": array(text(10), 2)}),
            "variant": {"oneOf": [{"type": "string", "maxLength": 10}, {"type": "integer"}, {"type": "boolean"}]},
        }
    ),
    "alert_rule": record(
        {
            "name": text(25),
            "severity": one_of("info", "warning", "critical"),
            "for": pattern("^[0-9]{1,3}[smh]$"),
            "threshold": number(),
            "labels": {"type": "object", "additionalProperties": text(10), "maxProperties": 2},
        }
    ),
    "cron_job": record(
        {
            "schedule": pattern("^[0-9*]{1,2} [0-9*]{1,2} [0-9*] [0-9*] [0-9*]$"),
            "command": text(30),
            "enabled": BOOLEAN,
            "retries": integer(0, 10),
        }
    ),
    "patch": {
        "type": "array",
        "minItems": 1,
        "maxItems": 2,
        "items": {
            "anyOf": [
                record(
                    {
                        "op": one_of("add", "replace", "test"),
                        "path": pattern("^(/[a-z0-9]{1,8}){1,3}$"),
                        "value": {"anyOf": [text(15), number(), BOOLEAN]},
                    }
                ),
                record({"op": {"const": "remove"}, "path": pattern("^(/[a-z0-9]{1,8}){1,3}$")}),
            ]
        },
    },
    "search_result": record(
        {
            "total": integer(0),
            "hits": array(record({"id": formatted("uuid"), "score": number(minimum=0), "highlight": text(40)}), 2),
            "next": nullable(formatted("uri")),
        }
    ),
    "matrix": {
        "type": "array",
        "minItems": 2,
        "maxItems": 2,
        "items": {"type": "array", "minItems": 3, "maxItems": 3, "items": integer(-9, 9)},
    },
    "all_of_person": {
        "allOf": [
            {"type": "object", "properties": {"name": text(20)}, "required": ["name"]},
            {"type": "object", "properties": {"age": integer(0, 120)}, "required": ["age"]},
        ]
    },
    "classification": one_of("billing", "technical", "sales", "other", None),
}
