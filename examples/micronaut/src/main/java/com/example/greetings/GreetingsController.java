package com.example.greetings;

import io.micronaut.http.MediaType;
import io.micronaut.http.annotation.Controller;
import io.micronaut.http.annotation.Get;
import io.micronaut.http.annotation.Produces;

@Controller
public class GreetingsController {

    @Get
    @Produces(MediaType.TEXT_PLAIN)
    public String greet() {
        return "Greetings from Micronaut!";
    }
}
