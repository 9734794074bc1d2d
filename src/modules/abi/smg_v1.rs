//! `smg:gateway` without a version, world `smg`: what modules of Shepherd Model Gateway are written for.
//! The types mirror `wit/v1/gateway.wit`.

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue};
use wasmtime::Store;
use wasmtime::component::{
    Component, ComponentExportIndex, ComponentNamedList, ComponentType, Func, InstancePre, Lift, Linker, Lower,
    TypedFunc,
};

use crate::modules::edit::{Edit, EditError, FieldEditsBuilder, bounded_body, final_status};
use crate::modules::hook::{Answer, Hook, RequestView, ResponseView, Verdict};
use crate::modules::host::HostState;

/// The interface and the function of each hook.
const EXPORTS: [(Hook, &str, &str); 2] = [
    (Hook::Request, "smg:gateway/middleware-on-request", "on-request"),
    (Hook::Response, "smg:gateway/middleware-on-response", "on-response"),
];

/// The interface that a module must export to be attached to `hook`.
pub fn interface(hook: Hook) -> &'static str {
    EXPORTS[hook as usize].1
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct HeaderRef<'a> {
    name: &'a str,
    value: &'a str,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct Request<'a> {
    method: &'a str,
    path: &'a str,
    query: &'a str,
    headers: &'a [HeaderRef<'a>],
    body: &'a [u8],
    #[component(name = "request-id")]
    request_id: &'a str,
    #[component(name = "now-epoch-ms")]
    now_epoch_ms: u64,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct Response<'a> {
    status: u16,
    headers: &'a [HeaderRef<'a>],
    body: &'a [u8],
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct Header {
    name: String,
    value: String,
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct ModifyAction {
    status: Option<u16>,
    #[component(name = "headers-set")]
    headers_set: Vec<Header>,
    #[component(name = "headers-add")]
    headers_add: Vec<Header>,
    #[component(name = "headers-remove")]
    headers_remove: Vec<String>,
    #[component(name = "body-replace")]
    body_replace: Option<Vec<u8>>,
}

#[derive(ComponentType, Lift)]
#[component(variant)]
enum Action {
    #[component(name = "continue")]
    Continue,
    #[component(name = "reject")]
    Reject(u16),
    #[component(name = "modify")]
    Modify(ModifyAction),
}

/// A component's code with its imports resolved.
#[derive(Clone)]
pub struct Linked {
    pre: InstancePre<HostState>,
    exports: [Option<ComponentExportIndex>; 2],
}

impl Linked {
    pub fn new(component: &Component, linker: &Linker<HostState>) -> wasmtime::Result<Self> {
        let exports = EXPORTS.map(|(_, interface, function)| {
            let interface = component.get_export_index(None, interface)?;
            component.get_export_index(Some(&interface), function)
        });
        Ok(Self { pre: linker.instantiate_pre(component)?, exports })
    }

    pub fn exports(&self, hook: Hook) -> bool {
        self.exports[hook as usize].is_some()
    }

    /// Forgets the exports of other hooks.
    pub fn keep(&mut self, hooks: &[Hook]) {
        for hook in Hook::ALL {
            if !hooks.contains(&hook) {
                self.exports[hook as usize] = None;
            }
        }
    }

    pub async fn instantiate(&self, store: &mut Store<HostState>) -> wasmtime::Result<Functions> {
        let instance = self.pre.instantiate_async(&mut *store).await?;
        let mut functions = Functions([None; 2]);
        for (function, index) in functions.0.iter_mut().zip(&self.exports) {
            if let Some(index) = index {
                let found = instance.get_func(&mut *store, index);
                *function = Some(found.ok_or_else(|| wasmtime::format_err!("an export is not a function"))?);
            }
        }
        Ok(functions)
    }
}

/// The hook functions of one guest.
#[derive(Clone, Copy)]
pub struct Functions([Option<Func>; 2]);

impl Functions {
    /// Checks that the exports have the types of the interface. Calls rely on this.
    pub fn check(&self, store: &Store<HostState>) -> wasmtime::Result<()> {
        if let Some(function) = self.0[Hook::Request as usize] {
            function.typed::<(Request<'_>,), (Action,)>(store)?;
        }
        if let Some(function) = self.0[Hook::Response as usize] {
            function.typed::<(Response<'_>,), (Action,)>(store)?;
        }
        Ok(())
    }

    pub async fn on_request(
        &self,
        store: &mut Store<HostState>,
        view: &RequestView,
        limit: u64,
    ) -> wasmtime::Result<Verdict> {
        let head = &*view.head;
        let values = values(&head.headers);
        let headers = headers(&head.headers, &values);
        let request = Request {
            method: head.method.as_str(),
            path: head.uri.path(),
            query: head.uri.query().unwrap_or_default(),
            headers: &headers,
            body: &view.body,
            request_id: view.request_id.to_str().unwrap_or_default(),
            now_epoch_ms: view.received_ms,
        };
        let action = self.call(Hook::Request, store, (request,)).await?;
        Ok(request_verdict(action, limit)?)
    }

    pub async fn on_response(
        &self,
        store: &mut Store<HostState>,
        view: &ResponseView,
        limit: u64,
    ) -> wasmtime::Result<Verdict> {
        let values = values(&view.head.headers);
        let headers = headers(&view.head.headers, &values);
        let response = Response { status: view.head.status.as_u16(), headers: &headers, body: &view.body };
        let action = self.call(Hook::Response, store, (response,)).await?;
        Ok(response_verdict(action, limit, view.streamed)?)
    }

    async fn call<P>(&self, hook: Hook, store: &mut Store<HostState>, input: P) -> wasmtime::Result<Action>
    where
        P: ComponentNamedList + Lower,
    {
        let function = self.0[hook as usize].expect("a module is attached only to hooks that it exports");
        #[expect(unsafe_code, reason = "checking the types again would cost as much as a call")]
        // SAFETY: `Functions::check` has checked this export of this component against these types.
        let function = unsafe { TypedFunc::<P, (Action,)>::new_unchecked(function) };
        Ok(function.call_async(store, input).await?.0)
    }
}

/// Header values as text. Those that are not UTF-8 are shown with replacement characters, never hidden.
fn values(headers: &HeaderMap) -> Vec<Cow<'_, str>> {
    headers.values().map(text).collect()
}

fn text(value: &HeaderValue) -> Cow<'_, str> {
    match str::from_utf8(value.as_bytes()) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(value.as_bytes()),
    }
}

fn headers<'a>(headers: &'a HeaderMap, values: &'a [Cow<'a, str>]) -> Vec<HeaderRef<'a>> {
    headers.iter().zip(values).map(|((name, _), value)| HeaderRef { name: name.as_str(), value }).collect()
}

/// The status of a modification is ignored on a request.
fn request_verdict(action: Action, limit: u64) -> Result<Verdict, EditError> {
    match action {
        Action::Continue => Ok(Verdict::Continue),
        Action::Reject(status) => Ok(Verdict::Respond(Box::new(Answer::empty(final_status(status)?)))),
        Action::Modify(modification) => edit(ModifyAction { status: None, ..modification }, limit),
    }
}

/// A rejection replaces the status on a response.
fn response_verdict(action: Action, limit: u64, streamed: bool) -> Result<Verdict, EditError> {
    match action {
        Action::Continue => Ok(Verdict::Continue),
        Action::Reject(status) => {
            Ok(Verdict::Edit(Box::new(Edit { status: Some(final_status(status)?), ..Edit::default() })))
        }
        Action::Modify(ModifyAction { body_replace: Some(_), .. }) if streamed => Err(EditError::BodyOnStream),
        Action::Modify(modification) => edit(modification, limit),
    }
}

fn edit(modification: ModifyAction, limit: u64) -> Result<Verdict, EditError> {
    let status = modification.status.map(final_status).transpose()?;
    let mut fields = FieldEditsBuilder::default();
    for header in &modification.headers_set {
        fields.set(&header.name, header.value.as_bytes())?;
    }
    for header in &modification.headers_add {
        fields.add(&header.name, header.value.as_bytes())?;
    }
    for name in &modification.headers_remove {
        fields.remove(name)?;
    }
    let body = modification.body_replace.map(|body| bounded_body(body, limit)).transpose()?;
    let fields = fields.finish(body.as_ref())?;
    Ok(Verdict::Edit(Box::new(Edit { status, fields, body, ..Edit::default() })))
}
