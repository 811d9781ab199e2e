//! The name, labels and namespace of all objects.

use serde_json::{Value, json};

use super::choice::{EXPRESSION, Form};

pub(super) const NAME: &str = "pidns-trace";

pub(super) fn labels() -> Value {
    json!({"app.kubernetes.io/name": NAME})
}

/// Metadata of an object in the namespace.
pub(super) fn metadata(form: Form, name: &str) -> Value {
    let namespace = match form {
        Form::Plain => json!(NAME),
        Form::Chart => json!(format!("{EXPRESSION}{{{{ .Release.Namespace }}}}")),
    };
    json!({"name": name, "namespace": namespace, "labels": labels()})
}
