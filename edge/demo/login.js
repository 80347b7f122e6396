/*! Portico sample login widget 1.0.0. It logs nobody in: it shows how such a script is delivered. */
(function () {
  "use strict";

  var VERSION = "1.0.0";

  // Where this script came from is where its tenants' configuration lives.
  var script = document.currentScript;
  var base = new URL(script.src).origin;

  var TEXTS = {
    en: {
      title: "Log in",
      email: "Email address",
      password: "Password",
      submit: "Continue",
      forgot: "Forgot your password?",
      busy: "One moment…",
      missing: "Please fill in both fields.",
      refused: "This is a demo: there is nobody to log in as.",
      unavailable: "The form could not be loaded. Please try again."
    },
    de: {
      title: "Anmelden",
      email: "E-Mail-Adresse",
      password: "Passwort",
      submit: "Weiter",
      forgot: "Passwort vergessen?",
      busy: "Einen Moment…",
      missing: "Bitte füllen Sie beide Felder aus.",
      refused: "Dies ist eine Vorführung: hier kann sich niemand anmelden.",
      unavailable: "Das Formular konnte nicht geladen werden. Bitte versuchen Sie es noch einmal."
    },
    fr: {
      title: "Connexion",
      email: "Adresse e-mail",
      password: "Mot de passe",
      submit: "Continuer",
      forgot: "Mot de passe oublié ?",
      busy: "Un instant…",
      missing: "Veuillez remplir les deux champs.",
      refused: "Ceci est une démonstration : personne ne peut se connecter ici.",
      unavailable: "Le formulaire n'a pas pu être chargé. Veuillez réessayer."
    },
    es: {
      title: "Iniciar sesión",
      email: "Correo electrónico",
      password: "Contraseña",
      submit: "Continuar",
      forgot: "¿Olvidó su contraseña?",
      busy: "Un momento…",
      missing: "Rellene los dos campos.",
      refused: "Esto es una demostración: aquí nadie puede iniciar sesión.",
      unavailable: "No se pudo cargar el formulario. Inténtelo de nuevo."
    }
  };

  var STYLE =
    ".portico-card{max-width:20rem;padding:1.5rem;border-radius:.75rem;background:#fff;box-shadow:0 1px 8px #0002}" +
    ".portico-card h2{margin:0 0 1rem;font-size:1.2rem}" +
    ".portico-card label{display:block;margin:.75rem 0 .25rem;font-size:.85rem}" +
    ".portico-card input{width:100%;box-sizing:border-box;padding:.5rem;border:1px solid #bbb;border-radius:.4rem;font:inherit}" +
    ".portico-card button{width:100%;margin-top:1.25rem;padding:.6rem;border:0;border-radius:.4rem;color:#fff;font:inherit;cursor:pointer}" +
    ".portico-card p{min-height:1.5em;margin:.75rem 0 0;font-size:.85rem}" +
    ".portico-card a{font-size:.85rem}";

  function element(name, attributes, children) {
    var node = document.createElement(name);
    Object.keys(attributes || {}).forEach(function (key) {
      node.setAttribute(key, attributes[key]);
    });
    (children || []).forEach(function (child) {
      node.append(child);
    });
    return node;
  }

  function textsFor(languages) {
    for (var i = 0; i < languages.length; i += 1) {
      var texts = TEXTS[languages[i].slice(0, 2).toLowerCase()];
      if (texts) return texts;
    }
    return TEXTS.en;
  }

  function field(id, label, type, autocomplete) {
    return [
      element("label", { for: id }, [label]),
      element("input", { id: id, name: id, type: type, autocomplete: autocomplete })
    ];
  }

  function form(tenant, texts) {
    var note = element("p", { role: "status" });
    var button = element("button", { type: "submit", style: "background:" + tenant.colour }, [texts.submit]);
    var node = element(
      "form",
      { class: "portico-card", novalidate: "" },
      [element("style", {}, [STYLE]), element("h2", {}, [texts.title + " · " + tenant.name])]
        .concat(field("portico-email", texts.email, "email", "username"))
        .concat(field("portico-password", texts.password, "password", "current-password"))
        .concat([button, note, element("a", { href: tenant.forgot }, [texts.forgot])])
    );
    node.addEventListener("submit", function (event) {
      event.preventDefault();
      var empty = Array.prototype.some.call(node.querySelectorAll("input"), function (input) {
        return !input.value;
      });
      note.textContent = empty ? texts.missing : texts.refused;
    });
    return node;
  }

  function show(place) {
    var texts = textsFor(navigator.languages || ["en"]);
    place.textContent = texts.busy;
    return fetch(base + "/tenants/" + encodeURIComponent(place.dataset.tenant) + ".json", { mode: "cors" })
      .then(function (response) {
        if (!response.ok) throw new Error("status " + response.status);
        return response.json();
      })
      .then(function (tenant) {
        place.replaceChildren(form(tenant, texts));
        place.dataset.ready = VERSION;
      })
      .catch(function (error) {
        place.textContent = texts.unavailable;
        place.dataset.failed = String(error);
      });
  }

  window.porticoLogin = { version: VERSION, show: show };

  var place = document.getElementById("portico-login");
  if (place) show(place);
})();
