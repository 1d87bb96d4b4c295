// Forms in dialogs: sending them, and every complaint beside its field.
for (const button of document.querySelectorAll("[data-close]")) button.addEventListener("click", () => button.closest("dialog").close());

export function clearErrors(form) {
  for (const p of form.querySelectorAll(".field-error, .form-error")) p.textContent = "";
}

// send submits a form and puts every complaint beside its field.
export async function send(form, dialog, act) {
  clearErrors(form);
  const submit = form.querySelector("button.primary");
  submit.disabled = true;
  try {
    await act();
    dialog.close();
  } catch (refusal) {
    let placed = false;
    for (const e of refusal.problem?.errors ?? []) {
      const name = (e.pointer ?? "").replace(/^\//, "").replace(/^(network\/publish)\/.*/, "$1");
      const field = form.querySelector(`[data-field="${CSS.escape(name)}"] .field-error`);
      if (field) { field.textContent = e.detail; placed = true; }
    }
    if (!placed) form.querySelector(".form-error").textContent = refusal.message + (refusal.problem?.hint ? ` – ${refusal.problem.hint}` : "");
  } finally {
    submit.disabled = false;
  }
}
