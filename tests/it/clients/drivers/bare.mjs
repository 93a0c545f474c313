// What the packages of Node do by themselves with an answer that is no stream.
import { EventSource } from "eventsource";
import { createEventSource } from "eventsource-client";

const tell = (route, kind, data) => console.log(JSON.stringify({ route, kind, data }));
const [, url] = process.argv.slice(2);
const refused = (route) => async (input, init) => {
  const response = await fetch(input, init);
  tell(route, "status", response.status);
  return response;
};
createEventSource({ url, fetch: refused("eventsource-client") });
const stream = new EventSource(url, { fetch: refused("eventsource") });
stream.onerror = (error) => tell("eventsource", "error", [error.code, stream.readyState]);
process.stdin.resume().on("end", () => process.exit());
