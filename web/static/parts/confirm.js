// A question before something is done.
import { $ } from "/lib/dom.js";

// ask shows a question; act is called when it is answered with yes. The button that leaves all as it is comes first.
export function ask({ title, text, yes, no = "Cancel", danger = false }, act) {
  const button = $("confirm-yes");
  $("confirm-title").textContent = title;
  $("confirm-text").textContent = text;
  button.textContent = yes;
  button.className = danger ? "danger" : "primary";
  button.previousElementSibling.textContent = no;
  button.onclick = () => {
    $("confirm-dialog").close();
    act();
  };
  $("confirm-dialog").showModal();
}
