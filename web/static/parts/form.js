// Forms in dialogs: sending them, and every complaint beside its field.
for (const button of document.querySelectorAll("[data-close]")) button.addEventListener("click", () => button.closest("dialog").close());

export function clearErrors(form) {
  for (const p of form.querySelectorAll(".field-error, .form-error")) p.textContent = "";
  for (const input of form.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
}

// place puts a complaint beside its field, and answers whether there is one.
function place(form, { pointer, detail }) {
  const name = (pointer ?? "").replace(/^\//, "").replace(/^(network\/publish)\/.*/, "$1");
  const field = form.querySelector(`[data-field="${CSS.escape(name)}"]`);
  if (!field || field.closest("[hidden]")) return false;
  field.querySelector(".field-error").textContent = detail;
  field.querySelector("input, select, textarea")?.setAttribute("aria-invalid", "true");
  return true;
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
    const errors = refusal.problem?.errors ?? [], elsewhere = errors.filter((e) => !place(form, e));
    const hint = refusal.problem?.hint ? ` – ${refusal.problem.hint}` : "";
    if (elsewhere.length) form.querySelector(".form-error").textContent = elsewhere.map((e) => `${e.pointer ?? ""} ${e.detail}`.trim()).join("; ") + hint;
    else if (!errors.length) form.querySelector(".form-error").textContent = refusal.message + hint;
    form.querySelector('[aria-invalid="true"]')?.focus();
  } finally {
    submit.disabled = false;
  }
}
