//! The files of the web console, built into the program, and how they are answered. What they hold is the same for everybody
//! and no secret, so they need no token; the page itself asks for it and signs its calls to the admin API as any other client.
//!
//! The page is plain HTML, CSS and JavaScript modules. It loads nothing from elsewhere, and the policy that goes with each file
//! has the browser refuse to: a text that got into the page as markup could neither run nor send anything away.

use crate::auth::hex;
use crate::refusal::Refusal;
use axum::body::Body;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

/// What a browser may do with the page: load and call this manager, run no script that stands in markup, be shown in no frame
/// of another page, and take no text for markup at all (trusted types).
const POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Path, content type, content.
const FILES: &[(&str, &str, &str)] = &[
    ("/", HTML, include_str!("index.html")),
    ("/console/style.css", CSS, include_str!("style.css")),
    ("/console/icon.svg", SVG, include_str!("icon.svg")),
    ("/console/theme.js", JS, include_str!("theme.js")),
    ("/console/app.js", JS, include_str!("app.js")),
    ("/console/api.js", JS, include_str!("api.js")),
    ("/console/sha256.js", JS, include_str!("sha256.js")),
    ("/console/words.js", JS, include_str!("words.js")),
    ("/console/dom.js", JS, include_str!("dom.js")),
    ("/console/chart.js", JS, include_str!("chart.js")),
    ("/console/history.js", JS, include_str!("history.js")),
    ("/console/view.js", JS, include_str!("view.js")),
    ("/console/commands.js", JS, include_str!("commands.js")),
];

/// The entity tag of each file, in their order.
static TAGS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let tag = |content: &str| format!("\"{}\"", &hex(&Sha256::digest(content))[..32]);
    FILES.iter().map(|(_, _, content)| tag(content)).collect()
});

/// Whether a path is the console's, also where there is no file.
pub(crate) fn is_at(path: &str) -> bool {
    path == "/" || path.starts_with("/console/")
}

/// Answers `GET` and `HEAD` of a file.
pub(crate) async fn answer(uri: Uri, headers: HeaderMap) -> Response {
    let Some(at) = FILES.iter().position(|(path, ..)| *path == uri.path()) else {
        let shown: String = uri.path().chars().take(120).collect();
        let message = format!("the console has no file {shown}");
        return Refusal::absent("no_such_path", message, "open / instead").into_response();
    };
    let (_, kind, content) = FILES[at];
    let tag = &TAGS[at];
    let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut known = known.flat_map(|value| value.split(','));
    let mut response = if known.any(|one| one.trim().trim_start_matches("W/") == tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Body::from(content).into_response()
    };
    let headers = response.headers_mut();
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(CONTENT_TYPE, kind);
    // Asked for anew each time and sent only when it is another: a page never mixes the files of two versions for long.
    set(CACHE_CONTROL, "no-cache");
    set(CONTENT_SECURITY_POLICY, POLICY);
    set(REFERRER_POLICY, "no-referrer");
    for (name, value) in
        [("cross-origin-resource-policy", "same-origin"), ("x-frame-options", "DENY")]
    {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(ETAG, HeaderValue::from_str(tag).expect("hexadecimal digits in quotes"));
    response
}
