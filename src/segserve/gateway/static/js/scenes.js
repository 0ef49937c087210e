// The demo rooms: generated pictures, and what there is to ask about them.

export const SCENES = [
  { name: "sofa", title: "Sofa and window", phrases: ["green sofa", "red door", "rug", "window"] },
  { name: "table", title: "Table and two chairs", phrases: ["purple chair", "blue chair", "table", "rug"] },
  { name: "bedroom", title: "Bedroom", phrases: ["bed", "plant", "lamp", "picture"] },
  { name: "lamp", title: "Lamp and chair", phrases: ["yellow lamp", "chair", "rug", "floor"] },
  { name: "plant", title: "Plant and table", phrases: ["plant", "green chair", "table", "wall"] },
  { name: "guest", title: "Guest room", phrases: ["bed", "lamp", "table", "window"] },
];

export const PHRASES = ["sofa", "chair", "table", "lamp", "floor", "window"];
