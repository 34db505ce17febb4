//! Speed of kernels and of whole models with random weights on a GPU: a line of JSON for each figure.
//!
//!     gpu_bench DEVICE TEXT PART SHAPE...      TEXT is a model folder with a tokenizer, for `decode`; PARTs are kernels,
//!                                              training, prefill and decode; SHAPEs 0.5b, 1.5b and 7b

#[cfg(feature = "cuda")]
fn main() -> std::process::ExitCode {
    match measure() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(feature = "cuda")]
fn measure() -> lm::Result<()> {
    use lm::gpu_bench::{Figure, decode, kernels, prefill, training};

    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [device, text, part, shapes @ ..] = &arguments[..] else {
        return Err(lm::Error::input("gpu_bench DEVICE TEXT PART SHAPE..."));
    };
    let device = lm::open_device(device)?;
    let tell = |figure: Figure| {
        let Figure { name, milliseconds, amount, unit } = figure;
        let rate = amount / milliseconds * 1e3;
        println!(
            "{}",
            serde_json::json!({"name": name, "ms": milliseconds, "rate": rate, "unit": format!("{unit}/s")})
        );
    };
    for shape in shapes {
        match &part[..] {
            "kernels" => kernels(&device, shape, tell)?,
            "training" => training(&device, shape, tell)?,
            "prefill" => prefill(&device, shape, tell)?,
            "decode" => decode(&device, shape, &lm::Text::load(std::path::Path::new(text))?, tell)?,
            _ => return Err(lm::Error::input("parts are kernels, training, prefill and decode")),
        }
    }
    Ok(())
}

#[cfg(not(feature = "cuda"))]
fn main() {
    println!("built without the feature `cuda`: there is nothing to measure");
}
