/** What to do about a connection that is not as it should be. */

import type { Connection, Session } from "../../types";

export function adviceForHome(
  { state, error }: Connection,
  configured: Session["home_assistant"]["configured"] | undefined,
): string | null {
  switch (state) {
    case "off":
      return configured === "login"
        ? null
        : "Connect otsd to Home Assistant: you log in there once more, and otsd keeps a way in of its own.";
    case "connecting":
      return error
        ? "It is tried again by itself every few seconds. If that goes on: does Home Assistant run, and is its address in the configuration right (home_assistant.url)?"
        : null;
    case "refused":
      if (configured === "login" || configured === "none") {
        return "Connect otsd again. It was probably removed in Home Assistant, or the administrator who connected it is none any more.";
      }
      if (configured === "supervisor")
        return "Restart the add-on; if that does not help, Home Assistant.";
      return "In Home Assistant, make a new long-lived access token: your profile › Security. Put it into the configuration (home_assistant.token) and restart otsd. It is not tried often, because Home Assistant bans whoever is wrong too often.";
    case "connected":
      return error && configured !== "token"
        ? "Connect otsd again, as an administrator of Home Assistant."
        : null;
  }
}

export function adviceForMqtt(
  { state, error }: Connection,
  configured: Session["home_assistant"]["configured"] | undefined,
): string | null {
  if (configured === "supervisor" && state === "off")
    return "MQTT is optional: it shows your links as devices in Home Assistant, and lets automations make them. To use it, install the add-on Mosquitto broker; otsd finds it by itself.";
  switch (state) {
    case "off":
      return "MQTT is optional: it shows your links as devices in Home Assistant, and lets automations make them. To use it, name a broker in the configuration (mqtt.host).";
    case "connecting":
      return error
        ? "It is tried again by itself every few seconds. If that goes on: does the broker run, and is its address right (mqtt.host, mqtt.port)? Links work without it."
        : null;
    case "refused":
      return "Look at the user and the password in the configuration (mqtt.username, mqtt.password), and restart otsd. Links work without it.";
    case "connected":
      return null;
  }
}
