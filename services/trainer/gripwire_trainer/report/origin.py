"""What the model of a report was made of."""

import html

from gripwire_reward.bundle import Manifest


def origin(manifest: Manifest) -> str:
    """As HTML."""
    trained, rule, fit = manifest.trained_on, manifest.decision, manifest.calibration
    contract = manifest.inputs[0]
    crop, (height, width) = contract.crop, contract.size
    rows = {
        "Datasets": "<br>".join(f"{html.escape(n)} {_hash(h)}" for n, h in trained.datasets.items()),
        "Labels": "<br>".join(f"{html.escape(n)} {_hash(h)}" for n, h in trained.labels.items()),
        "Frames": str(trained.frames),
        "Camera": html.escape(contract.key),
        "Picture": f"crop top {crop.top}, left {crop.left}, {crop.height} x {crop.width}; "
        f"then {height} x {width}",
        "Backbone": html.escape(manifest.backbone),
        "Calibration": f"temperature {fit.temperature:.3f}, bias {fit.bias:.3f}",
        "Decision": f"success when at or above {rule.threshold:.2f} for {rule.needed_s:g} of the last "
        f"{rule.window_s:g} s; withdrawn when below {rule.release:.2f} for as long; fitted at "
        f"{rule.fitted_hz:g} Hz",
        "Not valid": f"drift above {manifest.drift_limit:.2f}" if manifest.drift_limit else "never",
        "Held out": ", ".join(f"{len(e)} by head {i}" for i, e in enumerate(trained.split.values(), 1)),
        "Seed": str(trained.seed),
        "Code": _hash(trained.code) if trained.code else "",
        "Licence": html.escape(manifest.licence),
    }
    return f"<dl>{''.join(f'<dt>{term}<dd>{text}' for term, text in rows.items() if text)}</dl>"


def _hash(digest: str) -> str:
    return f'<code class="soft">{html.escape(digest[:12])}</code>'
