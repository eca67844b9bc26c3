package com.example.greetings;

import jakarta.ws.rs.GET;
import jakarta.ws.rs.Path;
import jakarta.ws.rs.Produces;
import jakarta.ws.rs.core.MediaType;

@Path("/")
public class GreetingsResource {

    @GET
    @Produces(MediaType.TEXT_PLAIN)
    public String greet() {
        return "Greetings from Quarkus!";
    }
}
