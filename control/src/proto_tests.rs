//! Within v1 the protocol only grows: whatever `podwire.lock` lists is still there, under its number and type.

use std::collections::BTreeSet;

use prost::Message;
use prost_types::field_descriptor_proto::Label;
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

const LOCK: &str = include_str!("../proto/podwire/v1/podwire.lock");

/// A line for every field, enum value and method.
fn listing(descriptors: &FileDescriptorSet) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for file in &descriptors.file {
        for message in &file.message_type {
            lines.extend(message.field.iter().map(|field| field_line(message, field)));
        }
        for kind in &file.enum_type {
            let values = kind.value.iter();
            lines.extend(values.map(|value| format!("enum {}.{}={}", kind.name(), value.name(), value.number())));
        }
        for service in &file.service {
            for method in &service.method {
                let stream = if method.server_streaming() { "stream " } else { "" };
                let (input, output) = (method.input_type(), method.output_type());
                lines.insert(format!("rpc {}.{}({input}) {stream}{output}", service.name(), method.name()));
            }
        }
    }
    lines
}

fn field_line(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let repeated = if field.label() == Label::Repeated { "repeated " } else { "" };
    let optional = match (field.proto3_optional(), field.oneof_index) {
        (true, _) => "optional ",
        (false, Some(_)) => "oneof ",
        (false, None) => "",
    };
    let kind = match field.type_name() {
        "" => field.r#type().as_str_name().trim_start_matches("TYPE_").to_lowercase(),
        name => name.to_owned(),
    };
    format!("{}.{}={}:{repeated}{optional}{kind}", message.name(), field.name(), field.number())
}

#[test]
fn nothing_that_the_lock_lists_has_left_the_protocol() {
    let now = listing(&FileDescriptorSet::decode(super::DESCRIPTORS).unwrap());
    let locked: BTreeSet<String> = LOCK.lines().map(str::to_owned).collect();
    let gone: Vec<_> = locked.difference(&now).collect();
    assert!(gone.is_empty(), "v1 only grows, but these are gone or changed: {gone:#?}");
    let new: Vec<_> = now.difference(&locked).map(String::as_str).collect();
    assert!(new.is_empty(), "add these to podwire.lock, so that they stay:\n{}", new.join("\n"));
}
