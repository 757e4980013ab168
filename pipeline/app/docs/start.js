// Swagger UI with the description of this server; validatorUrl: or it would ask another host about it.
SwaggerUIBundle({ url: "/openapi.json", dom_id: "#api", validatorUrl: null });
