// Elements of the page: found by id, or made. Texts only ever become text nodes, never HTML.

export const byId = (id) => {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no element ${id}`);
  return element;
};

/** An element with properties (dataset and aria as objects of their own) and children; strings become text. */
export function make(tag, { dataset = {}, aria = {}, role, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  Object.assign(element.dataset, dataset);
  for (const [name, value] of Object.entries(aria)) element.setAttribute(`aria-${name}`, value);
  if (role) element.setAttribute("role", role);
  element.append(...children);
  return element;
}

/** Fill a select; keeps the choice where it still exists. choices: [value, text]. */
export function fillSelect(select, choices) {
  const before = select.value;
  select.replaceChildren(...choices.map(([value, text]) => make("option", { value, textContent: text })));
  if (choices.some(([value]) => value === before)) select.value = before;
}

export const cssColor = ([red, green, blue]) => `rgb(${red} ${green} ${blue})`;
