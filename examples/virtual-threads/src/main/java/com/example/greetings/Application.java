package com.example.greetings;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.concurrent.Executors;

public class Application {
    private static final byte[] GREETINGS =
            "Greetings from virtual threads!".getBytes(StandardCharsets.UTF_8);

    public static void main(String[] args) throws IOException {
        HttpServer server = HttpServer.create(new InetSocketAddress(8080), 0);
        server.createContext("/", Application::greet);
        server.setExecutor(Executors.newVirtualThreadPerTaskExecutor());
        server.start();

        // A second door, where a virtual thread waits for whoever comes.
        ServerSocket door = new ServerSocket(8081);
        Thread.ofVirtual().start(() -> welcome(door));
    }

    private static void greet(HttpExchange exchange) throws IOException {
        try {
            // Something to wait for, as a database would be.
            Thread.sleep(Duration.ofMillis(1));
        } catch (InterruptedException e) {
            throw new IOException(e);
        }
        exchange.sendResponseHeaders(200, GREETINGS.length);
        try (var body = exchange.getResponseBody()) {
            body.write(GREETINGS);
        }
    }

    private static void welcome(ServerSocket door) {
        while (true) {
            try (Socket guest = door.accept()) {
                guest.getOutputStream().write(GREETINGS);
            } catch (IOException e) {
                System.err.println("a guest has left early: " + e);
            }
        }
    }
}
