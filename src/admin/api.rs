//! The routes of the admin listener, and their description in OpenAPI 3.1: one table gives both.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::routing::{MethodRouter, delete, get, post};
use axum::{Json, Router};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::caller::Caller;
use super::problem::Problem;
use super::shadow::InShadow;
use super::{
    Admin, agents, breakglass, console, endorsements, events, holds, login, notifications, records, runs,
    settled, shadow, tasks, tools,
};

/// One operation of the API.
struct Route {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    /// None where it is served by the listener for orchestrators.
    handler: Option<fn() -> MethodRouter<Arc<Admin>>>,
    /// The type of the query, of the body and of the answer.
    query: Option<Shape>,
    body: Option<Shape>,
    answer: Option<Shape>,
    /// What the answer is, when it is no JSON.
    media: Option<&'static str>,
}

/// The schema of a type, with what it refers to put among the generator's definitions.
type Shape = fn(&mut SchemaGenerator) -> Value;

fn shape<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    generator.subschema_for::<T>().to_value()
}

impl Route {
    const fn get(
        path: &'static str,
        summary: &'static str,
        handler: fn() -> MethodRouter<Arc<Admin>>,
        answer: Shape,
    ) -> Route {
        let (handler, answer) = (Some(handler), Some(answer));
        Route { method: "get", path, summary, handler, query: None, body: None, answer, media: None }
    }

    const fn post(
        path: &'static str,
        summary: &'static str,
        handler: fn() -> MethodRouter<Arc<Admin>>,
        body: Shape,
        answer: Shape,
    ) -> Route {
        let (handler, body, answer) = (Some(handler), Some(body), Some(answer));
        Route { method: "post", path, summary, handler, query: None, body, answer, media: None }
    }
}

/// Every operation of the API.
static ROUTES: &[Route] = &[
    Route::get("/v1/agents", "Every agent that you may see", || get(agents::list), shape::<agents::Agents>),
    Route::post(
        "/v1/agents/resume",
        "Let many agents go on",
        || post(agents::resume_many),
        shape::<agents::Many>,
        shape::<agents::OrderedMany>,
    ),
    Route::post(
        "/v1/agents/suspend",
        "Stop many agents",
        || post(agents::suspend_many),
        shape::<agents::Many>,
        shape::<agents::OrderedMany>,
    ),
    Route::get(
        "/v1/agents/{id}",
        "One agent, by its SPIFFE ID or the path of it, percent-encoded",
        || get(agents::show),
        shape::<agents::Shown>,
    ),
    Route::post(
        "/v1/agents/{id}/resume",
        "Let an agent go on",
        || post(agents::resume),
        shape::<agents::Reason>,
        shape::<agents::Ordered>,
    ),
    Route::post(
        "/v1/agents/{id}/suspend",
        "Stop an agent: from its next call on, and its open connections and streams are cut",
        || post(agents::suspend),
        shape::<agents::Reason>,
        shape::<agents::Ordered>,
    ),
    Route::get(
        "/v1/breakglass",
        "Emergency lifts: those that are open or not reviewed first, and what may be lifted",
        || get(breakglass::list),
        shape::<breakglass::Lifts>,
    ),
    Route::post(
        "/v1/breakglass",
        "Lift policies that let themselves be lifted, for at most an hour; somebody else reviews it afterwards",
        || post(breakglass::open),
        shape::<breakglass::Wish>,
        shape::<breakglass::Lift>,
    ),
    Route {
        method: "delete",
        ..Route::post(
            "/v1/breakglass/{id}",
            "End an emergency lift before its time: from the next decision on",
            || delete(breakglass::close),
            shape::<agents::Reason>,
            shape::<breakglass::Lift>,
        )
    },
    Route::post(
        "/v1/breakglass/{id}/review",
        "Say that you have looked at what was done under an emergency lift of somebody else",
        || post(breakglass::review),
        shape::<agents::Reason>,
        shape::<breakglass::Lift>,
    ),
    Route::get(
        "/v1/endorsements",
        "Destinations that people remembered for agents that you may see, those in force first",
        || get(endorsements::list),
        shape::<endorsements::Endorsements>,
    ),
    Route::post(
        "/v1/endorsements",
        "Remember a destination for one agent and one kind of sink",
        || post(endorsements::endorse),
        shape::<endorsements::Wish>,
        shape::<endorsements::Endorsement>,
    ),
    Route {
        method: "delete",
        ..Route::post(
            "/v1/endorsements/{id}",
            "Take an endorsement back",
            || delete(endorsements::revoke),
            shape::<agents::Reason>,
            shape::<endorsements::Revoked>,
        )
    },
    Route {
        media: Some("text/event-stream"),
        ..Route::get(
            "/v1/events",
            "Records as they are written: events `record`, and `dropped` where you were too slow",
            || get(events::stream),
            shape::<records::Record>,
        )
    },
    Route::get("/v1/health", "How the gateway is", || get(health), shape::<Health>),
    Route {
        query: Some(shape::<holds::Which>),
        ..Route::get(
            "/v1/holds",
            "Calls that wait for people, or did, as far as you may see them",
            || get(holds::list),
            shape::<holds::Holds>,
        )
    },
    Route::get(
        "/v1/holds/{id}",
        "One held call, with the very text that is approved",
        || get(holds::show),
        shape::<holds::Shown>,
    ),
    Route::post(
        "/v1/holds/{id}/approve",
        "Approve exactly this call: it runs once, while its agent is there, before its time is over",
        || post(holds::approve),
        shape::<holds::Say>,
        shape::<holds::Hold>,
    ),
    Route::post(
        "/v1/holds/{id}/deny",
        "Deny this call: one denial ends it",
        || post(holds::deny),
        shape::<holds::Say>,
        shape::<holds::Hold>,
    ),
    Route::post(
        "/v1/holds/{id}/resolve",
        "Say what came of a call of which nobody knew whether it took effect; nothing is executed by that",
        || post(settled::resolve),
        shape::<settled::Finding>,
        shape::<holds::Hold>,
    ),
    Route {
        query: Some(shape::<notifications::Which>),
        ..Route::get(
            "/v1/notifications",
            "What webhooks should be told and have not confirmed, about holds that you may see",
            || get(notifications::list),
            shape::<notifications::Notifications>,
        )
    },
    Route {
        method: "post",
        path: "/v1/notifications/{id}/retry",
        summary: "Try a notification again now, also one that is not tried any more",
        handler: Some(|| post(notifications::retry)),
        query: None,
        body: None,
        answer: Some(shape::<notifications::Notification>),
        media: None,
    },
    Route {
        query: Some(shape::<records::Wanted>),
        ..Route::get(
            "/v1/records",
            "Records of the audit, the newest first",
            || get(records::list),
            shape::<records::Records>,
        )
    },
    Route::get(
        "/v1/records/{id}",
        "The whole story of one call, by a record's id, or of one trace",
        || get(records::story),
        shape::<records::Story>,
    ),
    Route::get("/v1/runs", "The runs that you may see", || get(runs::list), shape::<runs::Runs>),
    Route {
        query: Some(shape::<runs::Whose>),
        ..Route::get(
            "/v1/runs/{id}",
            "One run: what it has read, and what was found in what it sends",
            || get(runs::show),
            shape::<runs::Shown>,
        )
    },
    Route {
        query: Some(shape::<runs::Whose>),
        ..Route::post(
            "/v1/runs/{id}/unfreeze",
            "Let a frozen run go on",
            || post(runs::unfreeze),
            shape::<agents::Reason>,
            shape::<runs::Unfrozen>,
        )
    },
    Route::get(
        "/v1/shadow",
        "What is decided and recorded but not enforced, and what would have been stopped in the last day",
        || get(shadow::show),
        shape::<shadow::Told>,
    ),
    Route::get(
        "/v1/standing",
        "Approvals that stand for more than one execution of exactly one call, those in force first",
        || get(settled::list),
        shape::<settled::Standings>,
    ),
    Route {
        method: "delete",
        ..Route::post(
            "/v1/standing/{id}",
            "Take a standing approval back: what it approved and has not run ends",
            || delete(settled::revoke),
            shape::<agents::Reason>,
            shape::<settled::Standing>,
        )
    },
    Route {
        method: "post",
        path: "/v1/tasks",
        summary: "Open a task, on the listener for orchestrators: its token adds what the task needs to what is known",
        handler: None,
        query: None,
        body: Some(shape::<tasks::Opening>),
        answer: Some(shape::<tasks::Opened>),
        media: None,
    },
    Route {
        method: "delete",
        path: "/v1/tasks/{id}",
        summary: "Close a task of your own and those below it, on the listener for orchestrators",
        handler: None,
        query: None,
        body: None,
        answer: Some(shape::<tasks::Closed>),
        media: None,
    },
    Route {
        query: Some(shape::<tools::Wanted>),
        ..Route::get(
            "/v1/tools",
            "What the catalogue says of each tool, and whether its definition is still believed",
            || get(tools::list),
            shape::<tools::Tools>,
        )
    },
];

/// What people reach: the API and the console.
pub(super) fn router(admin: &Arc<Admin>) -> Router {
    let mut routes = operations().merge(console::routes());
    if admin.logins.is_some() {
        routes = routes.merge(login::routes());
    }
    let missing = async |State(admin): State<Arc<Admin>>, caller: Caller, request: Request| {
        console::refused(&admin, &caller, (request.headers(), request.uri()), no_such_page()).await
    };
    let method = async |State(admin): State<Arc<Admin>>, caller: Caller, request: Request| {
        console::refused(&admin, &caller, (request.headers(), request.uri()), Problem::Method).await
    };
    routes.fallback(missing).method_not_allowed_fallback(method).with_state(Arc::clone(admin))
}

/// What the machine's own socket reaches: the API.
pub(super) fn local(admin: &Arc<Admin>) -> Router {
    operations()
        .fallback(|_caller: Caller| async { no_such_page() })
        .method_not_allowed_fallback(|_caller: Caller| async { Problem::Method })
        .with_state(Arc::clone(admin))
}

fn no_such_page() -> Problem {
    Problem::NotFound("there is no such page".to_owned())
}

fn operations() -> Router<Arc<Admin>> {
    let described = Router::new().route("/openapi.json", get(|_caller: Caller| async { Json(openapi()) }));
    ROUTES.iter().fold(described, |router, route| match route.handler {
        Some(handler) => router.route(route.path, handler()),
        None => router,
    })
}

/// The API in OpenAPI 3.1 [OpenAPI 3.1.1], from the types that it reads and writes.
pub fn openapi() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
    });
    let mut generator = settings.into_generator();
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let operation = operation(route, &mut generator);
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            path.insert(route.method.to_owned(), operation);
        }
    }
    let schemas = generator.take_definitions(true);
    json!({
        "openapi": "3.1.1",
        "info": {
            "title": "Holdpoint admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Over mutual TLS with a certificate of a trust domain of people, with an access token of the \
                            configured identity provider, or over the machine's own socket, which sees, suspends and resumes, and opens break-glass in a person's name. `/v1/tasks` is on the listener of \
                            kind `tasks`, for certificates of a trust domain of orchestrators.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"mutualTLS": []}, {"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "mutualTLS": {"type": "mutualTLS"},
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT [RFC 9068]"},
            },
            "responses": {"problem": {
                "description": "What went wrong [RFC 9457]",
                "content": {"application/problem+json": {"schema": {
                    "type": "object",
                    "required": ["type", "title", "status", "detail"],
                    "properties": {
                        "type": {"type": "string"}, "title": {"type": "string"},
                        "status": {"type": "integer"}, "detail": {"type": "string"},
                    },
                }}},
            }},
        },
    })
}

fn operation(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let mut parameters = Vec::new();
    if route.path.contains("{id}") {
        parameters.push(json!({"name": "id", "in": "path", "required": true, "schema": {"type": "string"}}));
    }
    if let Some(query) = route.query {
        parameters.extend(queried(&query(generator), generator));
    }
    let media = route.media.unwrap_or("application/json");
    let schema = route.answer.map(|shape| shape(generator)).unwrap_or_default();
    let words: Vec<&str> = route.path.split(['/', '{', '}']).filter(|word| !word.is_empty()).collect();
    let mut operation = json!({
        "operationId": format!("{}-{}", route.method, words.join("-")),
        "summary": route.summary,
        "parameters": parameters,
        "responses": {
            "200": {"description": "Done", "content": {media: {"schema": schema}}},
            "default": {"$ref": "#/components/responses/problem"},
        },
    });
    if let (Some(body), Some(operation)) = (route.body, operation.as_object_mut()) {
        let content = json!({"application/json": {"schema": body(generator)}});
        operation.insert("requestBody".to_owned(), json!({"required": true, "content": content}));
    }
    operation
}

/// Every property of a query's type as a parameter of its own.
fn queried(reference: &Value, generator: &SchemaGenerator) -> Vec<Value> {
    let name = reference.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
    let schema = name.and_then(|name| generator.definitions().get(name));
    let properties = schema.and_then(|schema| schema.get("properties")).and_then(Value::as_object);
    let parameter = |(name, schema): (&String, &Value)| {
        let description = schema.get("description").cloned().unwrap_or_default();
        json!({"name": name, "in": "query", "required": false, "description": description, "schema": schema})
    };
    properties.into_iter().flatten().map(parameter).collect()
}

/// How the gateway is.
#[derive(Debug, Serialize, JsonSchema)]
struct Health {
    /// `ready`, or `degraded`.
    status: &'static str,
    /// What is not as it should be.
    findings: Vec<String>,
    /// Records that could not be written.
    audit_lost: u64,
    /// Records that the index does not have yet.
    index_behind: u64,
    /// The revision of the policies in force.
    policy_revision: String,
    /// Agents in the registry.
    agents: usize,
    /// Agents that are suspended by an order.
    suspended: usize,
    /// People.
    people: usize,
    /// What is decided and recorded, and not enforced.
    shadow: InShadow,
}

/// Records that the index may be behind by without anybody being told.
const BEHIND_MAX: u64 = 10_000;

/// `GET /v1/health`. Everybody who is somebody here may ask.
async fn health(State(admin): State<Arc<Admin>>, _caller: Caller) -> Result<Json<Health>, Problem> {
    let lost = admin.evidence().ledger.stats().lost;
    let behind = admin.index.behind();
    let unreadable = admin.index.indexed().unreadable;
    let mut findings = Vec::new();
    let suspended = match admin.suspensions().all().await {
        Ok(all) => all.len(),
        Err(error) => {
            findings.push(format!("store: {error}"));
            0
        }
    };
    if lost > 0 {
        findings.push(format!("audit: {lost} records could not be written"));
    }
    if behind > BEHIND_MAX {
        findings.push(format!("index: {behind} records behind the audit"));
    }
    if unreadable > 0 {
        findings.push(format!("audit: {unreadable} records could not be read; run `holdpoint audit verify`"));
    }
    Ok(Json(Health {
        status: if findings.is_empty() { "ready" } else { "degraded" },
        findings,
        audit_lost: lost,
        index_behind: behind,
        policy_revision: admin.policy().revision().to_string(),
        agents: admin.directory().entries().count(),
        suspended,
        people: admin.people.load().len(),
        shadow: InShadow::now(&admin),
    }))
}
