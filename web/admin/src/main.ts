import "./style.css";
import { returnFromLogin } from "./api";
import { live } from "./store/live";
import "./ui/components";
import "./app-shell";

const dark = matchMedia("(prefers-color-scheme: dark)");
const dress = () => {
  document.documentElement.classList.toggle("wa-dark", dark.matches);
  document.documentElement.classList.toggle("wa-light", !dark.matches);
};
dark.addEventListener("change", dress);
dress();

returnFromLogin();
live.start();
