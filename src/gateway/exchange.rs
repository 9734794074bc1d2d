//! One request that is being answered, and what answering it needs.

use std::rc::Rc;

use http::HeaderValue;

use super::Gateway;
use super::record::Record;
use super::view::View;
use crate::client::Caller;

pub struct Exchange<'a> {
    pub gateway: &'a Gateway,
    pub view: &'a Rc<View>,
    pub caller: &'a Caller<'a>,
    pub record: &'a mut Record,
    /// The protocol that the client would switch to.
    pub upgrade: Option<HeaderValue>,
}
