//! The reader returns the values and tensors that the writer was given.

mod gguf_fixture;

use std::io::Write;

use gguf_fixture::{float_bytes, model, noise};
use stages::format::Format;
use stages::gguf::{GgufHeader, GgufWriter, Keep, TensorSource, Value, ValueKind, WriteError};

#[test]
fn every_kind_of_value_survives_a_round_trip() {
    let integers = [
        (ValueKind::U8, 255),
        (ValueKind::I8, -128),
        (ValueKind::U16, 65_535),
        (ValueKind::I16, -32_768),
        (ValueKind::U32, u32::MAX.into()),
        (ValueKind::I32, i32::MIN.into()),
        (ValueKind::U64, u64::MAX.into()),
        (ValueKind::I64, i64::MIN.into()),
    ];
    let mut values: Vec<(String, Value)> =
        integers.into_iter().map(|(kind, number)| (kind.name().to_owned(), Value::Integer(kind, number))).collect();
    values.extend([
        ("f32".to_owned(), Value::from(-0.1f32)),
        ("f64".to_owned(), Value::Float(ValueKind::F64, 1e300)),
        ("true".to_owned(), true.into()),
        ("text".to_owned(), "ä 中 🦀 \0 end".into()),
        ("empty text".to_owned(), "".into()),
        ("texts".to_owned(), (&["", "a", "bc"][..]).into()),
        ("no texts".to_owned(), (&[] as &[&str]).into()),
        ("numbers".to_owned(), (&[1i32, -1, i32::MAX][..]).into()),
        ("floats".to_owned(), (&[0.5f32, f32::MIN_POSITIVE][..]).into()),
    ]);
    let writer = values.iter().fold(GgufWriter::new(), |writer, (key, value)| writer.metadata(key, value.clone()));
    let header = GgufHeader::parse(&writer.to_bytes().unwrap()).unwrap();
    assert_eq!(header.version, 3);
    assert_eq!(header.metadata.len(), values.len());
    for (key, value) in &values {
        assert_eq!(header.metadata.get(key), Some(value), "{key}");
    }
    assert_eq!(header.metadata.u64("u64").unwrap(), u64::MAX);
    assert!(header.metadata.i32("i64").is_err(), "an i64 this small is no i32");
}

fn in_files() -> impl Iterator<Item = Format> {
    Format::ALL.into_iter().filter(|format| format.ggml().is_some())
}

#[test]
fn a_format_that_no_file_has_is_not_written() {
    let error = GgufWriter::new().tensor("a", &[64], Format::F8E4M3, vec![0; 68]).map(|_| ()).unwrap_err();
    assert_eq!(error.to_string(), "tensor \"a\": expected a format of GGUF files, found F8_E4M3");
}

#[test]
fn tensors_come_back_with_their_bytes_in_every_format() {
    let mut writer = GgufWriter::new().metadata("general.architecture", "none");
    let mut expected = Vec::new();
    for (index, format) in in_files().enumerate() {
        let dims = [256, 3, 1 + index as u64 % 2];
        let bytes = noise(index as u64, dims[1] * dims[2] * format.row_bytes(256).unwrap() as u64);
        writer = writer.tensor(format.name(), &dims, format, bytes.clone()).unwrap();
        expected.push((format, dims, bytes));
    }
    let file = writer.to_bytes().unwrap();
    let header = GgufHeader::parse(&file).unwrap();
    assert_eq!(header.tensors.len(), expected.len());
    assert_eq!(header.file_bytes, file.len() as u64);
    for (format, dims, bytes) in expected {
        let tensor = header.tensor(format.name()).unwrap();
        assert_eq!((tensor.format, tensor.dims.as_slice()), (format, &dims[..]));
        assert_eq!(tensor.offset % 32, 0);
        assert_eq!(&file[tensor.offset as usize..tensor.end() as usize], bytes);
    }
    assert!(header.tensor("Q9_9").is_none());
}

#[test]
fn a_streamed_tensor_is_the_same_file_as_one_from_memory() {
    let bytes = float_bytes((0..96).map(|index| index as f32));
    let from_memory = GgufWriter::new().tensor("a", &[96], Format::F32, bytes.clone()).unwrap();
    let pieces = move |out: &mut dyn Write| bytes.chunks(7).try_for_each(|piece| out.write_all(piece));
    let streamed =
        GgufWriter::new().tensor_from("a", &[96], Format::F32, TensorSource::Stream(Box::new(pieces))).unwrap();
    assert_eq!(streamed.to_bytes().unwrap(), from_memory.to_bytes().unwrap());
}

#[test]
fn the_writer_refuses_what_the_reader_would() {
    let refused = |dims: &[u64], format, bytes: usize| {
        GgufWriter::new().tensor("t", dims, format, vec![0; bytes]).err().map(|error| error.to_string())
    };
    let message = refused(&[32, 2], Format::Q8_0, 67).unwrap();
    assert_eq!(message, r#"tensor "t": expected 68 bytes for [32, 2] in Q8_0, found 67"#);
    assert!(refused(&[33], Format::Q8_0, 34).unwrap().contains("rows of a multiple of 32"));
    assert!(refused(&[], Format::F32, 0).is_some() && refused(&[1, 0], Format::F32, 0).is_some());
    assert!(refused(&[1; 5], Format::F32, 4).is_some());
    assert!(GgufWriter::new().tensor(&"n".repeat(65), &[1], Format::F32, vec![0; 4]).is_err());

    let short = TensorSource::Stream(Box::new(|out| out.write_all(&[0; 3])));
    let error = GgufWriter::new().tensor_from("t", &[1], Format::F32, short).unwrap().to_bytes().unwrap_err();
    assert_eq!(error.to_string(), r#"tensor "t": expected a stream of 4 bytes, found 3"#);
    let nested = GgufWriter::new().metadata("k", Value::Nested { count: 1 }).to_bytes();
    assert!(matches!(nested, Err(WriteError::Value { .. })));
}

#[test]
fn without_the_vocabulary_only_the_arrays_of_the_tokenizer_are_missing() {
    let file = model(true).to_bytes().unwrap();
    let (all, without_vocabulary) =
        (GgufHeader::parse(&file).unwrap(), GgufHeader::parse_keeping(&file, Keep::NoVocabulary).unwrap());
    let missing: Vec<&str> =
        all.metadata.iter().map(|(key, _)| key).filter(|key| without_vocabulary.metadata.get(key).is_none()).collect();
    assert_eq!(missing, ["tokenizer.ggml.tokens"]);
    assert_eq!(without_vocabulary.metadata.str("tokenizer.ggml.model").unwrap(), "gpt2");
    assert_eq!(all.tensors, without_vocabulary.tensors);
}

#[test]
fn a_version_2_file_is_read_too() {
    let mut file = model(true).to_bytes().unwrap();
    let of_three = GgufHeader::parse(&file).unwrap();
    file[4] = 2;
    let of_two = GgufHeader::parse(&file).unwrap();
    assert_eq!((of_two.version, of_two.tensors), (2, of_three.tensors));
}

#[test]
fn a_file_of_metadata_alone_has_no_tensors() {
    let header = GgufHeader::parse(&GgufWriter::new().metadata("a", 1u32).to_bytes().unwrap()).unwrap();
    assert!(header.tensors.is_empty());
    assert_eq!(header.metadata.u32("a").unwrap(), 1);
}
